import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServingEngine } from "../engine/types.ts";
import type { GrammarCompiler } from "../structured/compiler.ts";
import { ApiError, clip } from "./errors.ts";
import { EventStream, type EventStreamOptions } from "./event_stream.ts";
import type { Logger } from "./log.ts";

/** What one request may ask for at the most. */
export interface RequestLimits {
  /** Bytes of a body. */
  readonly bodyBytes: number;
  /** Answers in all: prompts times `n`. */
  readonly answers: number;
  /** Inputs of one request for embeddings. */
  readonly embeddings: number;
}

/** What every handler knows of its server. */
export interface Service {
  readonly engine: ServingEngine;
  /** Compiles what answers must look like; made when it is first needed. */
  readonly grammars: GrammarCompiler;
  /** The names under which the model answers, the first for requests that name none. */
  readonly modelNames: readonly string[];
  /** When the model was loaded: seconds since 1970. */
  readonly created: number;
  readonly limits: RequestLimits;
  readonly stream: EventStreamOptions;
  /** A chat template that stands in for the model's own. */
  readonly chatTemplate: string | undefined;
}

/** An id that a client may choose: short, and harmless in a log. */
const saneId = /^[\w.:-]{1,128}$/;

/** One request and its answer. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly log: Logger;
  /** The client's `x-request-id` where it is sane, or one made here. */
  readonly id: string;
  /** Aborted when the client goes away or the answer is over. */
  readonly signal: AbortSignal;
  /** Whom the request is for: the number of its API key, or none. */
  key: number | undefined;
  promptTokens = 0;
  answerTokens = 0;
  readonly #controller = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse, log: Logger) {
    this.request = request;
    this.response = response;
    this.log = log;
    this.signal = this.#controller.signal;
    // Each prompt of a request listens to it.
    setMaxListeners(0, this.signal);
    const asked = request.headers["x-request-id"];
    this.id = typeof asked === "string" && saneId.test(asked) ? asked : randomUUID();
    response.on("close", () => this.abort());
  }

  /** Ends what still runs for this request. */
  abort(): void {
    this.#controller.abort();
  }

  /** Whether there is nobody left to answer. */
  get gone(): boolean {
    return this.response.destroyed && !this.response.writableFinished;
  }

  /** Answers with text. */
  send(status: number, type: string, body: string, headers: Readonly<Record<string, string>> = {}): void {
    if (this.response.headersSent || this.response.destroyed) return;
    this.response.writeHead(status, {
      ...headers,
      "content-type": type,
      "content-length": Buffer.byteLength(body),
    });
    this.response.end(body);
  }

  /** Answers with JSON. */
  sendJson(value: unknown, status = 200): void {
    this.send(status, "application/json", JSON.stringify(value));
  }

  /** Answers with an error. */
  sendError(error: ApiError): void {
    this.send(error.status, "application/json", error.body(), error.headers);
  }

  /** Opens the answer as a stream of events. */
  openStream(options: EventStreamOptions): EventStream {
    return new EventStream(this.response, options);
  }
}

/**
 * The served name that a request asked for.
 * @throws ApiError 404 `model_not_found`
 */
export function resolveModel(asked: string | undefined, service: Service): string {
  const name = asked ?? service.modelNames[0]!;
  if (service.modelNames.includes(name)) return name;
  throw new ApiError(404, `the model ${JSON.stringify(clip(name, 100))} does not exist here`, {
    parameter: "model",
    code: "model_not_found",
  });
}
