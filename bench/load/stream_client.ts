/** One streamed completion of any OpenAI-compatible server, with the time of everything that came. */
import { Agent, request as send } from "node:http";
import { createParser } from "./event_stream.ts";

/** Which server, and how to ask it. */
export interface ServerTarget {
  readonly url: string;
  /** The `model` of requests. */
  readonly model: string;
  readonly apiKey?: string;
  /** Members added to every request, such as `ignore_eos`. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** What became of a request. Times in seconds of `performance.now()`. */
export interface Timeline {
  readonly sent: number;
  /** When pieces of text came. */
  readonly pieces: readonly number[];
  readonly ended: number;
  /** Tokens of the answer, as the server counts them; pieces where it does not. */
  readonly tokens: number;
  readonly promptTokens: number;
  /** Why it failed, if it did: a status or a message. */
  readonly failure?: string;
}

interface Chunk {
  readonly choices?: readonly { readonly text?: string }[];
  readonly usage?: { readonly prompt_tokens?: number; readonly completion_tokens?: number } | null;
  readonly error?: { readonly message?: string };
}

/** Connections are kept, as clients of a service do. */
export function createAgent(): Agent {
  return new Agent({ keepAlive: true, maxSockets: 1024 });
}

const now = (): number => performance.now() / 1000;

/** Sends a greedy completion and follows its stream to the end; never rejects. */
export function streamCompletion(
  target: ServerTarget,
  prompt: readonly number[],
  output: number,
  agent: Agent,
): Promise<Timeline> {
  const body = JSON.stringify({
    model: target.model,
    prompt,
    max_tokens: output,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    ...target.extra,
  });
  const sent = now();
  const pieces: number[] = [];
  let usage: NonNullable<Chunk["usage"]> = {};
  let failure: string | undefined;
  return new Promise((resolve) => {
    const finish = (reason?: string): void => {
      const why = failure ?? reason;
      resolve({
        sent,
        pieces,
        ended: now(),
        tokens: usage.completion_tokens ?? pieces.length,
        promptTokens: usage.prompt_tokens ?? prompt.length,
        ...(why === undefined ? {} : { failure: why }),
      });
    };
    const parser = createParser((data) => {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error !== undefined) failure = chunk.error.message ?? "an error without a message";
      if (chunk.usage !== undefined && chunk.usage !== null) usage = chunk.usage;
      if ((chunk.choices?.[0]?.text ?? "") !== "") pieces.push(now());
    });
    const outgoing = send(
      `${target.url}/v1/completions`,
      {
        method: "POST",
        agent,
        headers: {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
          ...(target.apiKey === undefined ? {} : { authorization: `Bearer ${target.apiKey}` }),
        },
      },
      (response) => {
        response.setEncoding("utf8");
        if (response.statusCode !== 200) {
          failure = `HTTP ${response.statusCode}`;
          response.resume();
        } else {
          response.on("data", (text: string) => {
            try {
              parser(text);
            } catch (error) {
              failure = `an event that is not JSON: ${String(error)}`;
              outgoing.destroy();
            }
          });
        }
        response.on("end", () => finish());
        response.on("error", (error) => finish(error.message));
      },
    );
    outgoing.on("error", (error) => finish(error.message));
    outgoing.end(body);
  });
}
