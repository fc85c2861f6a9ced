import type { Logger, LogLevel } from "./log.ts";

/** How long the server waits for clients. Milliseconds. */
export interface ServerTimeouts {
  /** For the headers of a request; 10 s by default. */
  readonly headers: number;
  /** For a whole request with its body; 60 s by default. */
  readonly request: number;
  /** On a connection without a request; 75 s by default. */
  readonly keepAlive: number;
  /** For a client that reads nothing of its answer; 30 s by default. */
  readonly stall: number;
  /** For the rest of a body that was refused; 5 s by default. */
  readonly linger: number;
}

/** How a server listens and what it lets in. */
export interface ServerOptions {
  /** 127.0.0.1 by default: this machine only. */
  readonly host?: string;
  /** 8000 by default; 0 takes any free one. */
  readonly port?: number;
  /** Keys of which requests must carry one; none by default: everybody who reaches the port may come. */
  readonly apiKeys?: readonly string[];
  /** Names under which the model answers; the engine's own by default. */
  readonly modelNames?: readonly string[];
  /** Bytes of a body at the most; 16 MiB by default. */
  readonly maximumBodyBytes?: number;
  /** Answers of one request at the most, prompts times `n`; 128 by default. */
  readonly maximumAnswers?: number;
  /** Inputs of one request for embeddings at the most; 2048 by default. */
  readonly maximumEmbeddings?: number;
  /** Bytes that may wait for a client that does not read; 64 KiB by default. */
  readonly highWater?: number;
  /** Origins whose pages may read answers, or "*"; none by default. */
  readonly corsOrigins?: readonly string[];
  /** A Jinja chat template that stands in for the model's own. */
  readonly chatTemplate?: string;
  readonly timeouts?: Partial<ServerTimeouts>;
  /** What /version says. */
  readonly version?: string;
  /** "info" by default, as JSON lines on standard error. */
  readonly logLevel?: LogLevel;
  /** Where log lines go instead. */
  readonly logger?: Logger;
}

/** The timeouts that hold where none are given. */
export const defaultTimeouts: ServerTimeouts = {
  headers: 10_000,
  request: 60_000,
  keepAlive: 75_000,
  stall: 30_000,
  linger: 5_000,
};

/** Bytes of a body at the most, by default. */
export const defaultBodyBytes = 16 * 2 ** 20;
