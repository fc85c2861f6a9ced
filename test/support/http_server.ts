import { connect } from "node:net";
import { afterEach } from "vitest";
import { type RunningServer, type ServerOptions, serve } from "../../src/serve/http/index.ts";
import { createLogger } from "../../src/serve/http/log.ts";
import { FakeEngine, type FakeOptions } from "./fake_engine.ts";

/** What tests read of bodies; each answer has some of it. */
export interface ResponseBody {
  readonly id: string;
  readonly model: string;
  readonly created: number;
  readonly choices: readonly {
    readonly index: number;
    readonly text: string;
    readonly message: Readonly<Record<string, unknown>>;
    readonly finish_reason: string;
    readonly logprobs: { readonly top_logprobs: readonly Readonly<Record<string, number>>[] | null };
  }[];
  readonly usage: Readonly<Record<string, number>>;
  readonly data: readonly { readonly embedding: number[] }[];
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** A response whose JSON is typed. */
export interface ApiResponse extends Response {
  json(): Promise<ResponseBody>;
}

/** A server on a fake engine, closed when the test ends. */
export interface TestServer {
  readonly url: string;
  readonly engine: FakeEngine;
  readonly server: RunningServer;
  /** What was logged, one object a line. */
  readonly logged: Record<string, unknown>[];
  /** POSTs a JSON body, or text and bytes as they are. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<ApiResponse>;
  get(path: string, headers?: Record<string, string>): Promise<ApiResponse>;
}

const open: RunningServer[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close({ timeoutSeconds: 0 })));
});

/** Starts a server on any free port. */
export async function startServer(
  fake: FakeOptions | FakeEngine = {},
  options: ServerOptions = {},
): Promise<TestServer> {
  const engine = fake instanceof FakeEngine ? fake : new FakeEngine(fake);
  const logged: Record<string, unknown>[] = [];
  const logger = createLogger("debug", (line) => logged.push(JSON.parse(line)));
  const server = await serve(engine, { port: 0, logger, ...options });
  open.push(server);
  const { url } = server;
  return {
    url,
    engine,
    server,
    logged,
    post: (path, body, headers = {}) =>
      fetch(url + path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
      }) as Promise<ApiResponse>,
    get: (path, headers = {}) => fetch(url + path, { headers }) as Promise<ApiResponse>,
  };
}

/** The data of each server-sent event of a response, parsed but for `[DONE]`. */
export async function readEvents(response: Response): Promise<unknown[]> {
  const text = await response.text();
  if (!text.endsWith("\n\n")) throw new Error(`the stream does not end with an event: ${text.slice(-80)}`);
  return text
    .slice(0, -2)
    .split("\n\n")
    .map((event) => {
      if (!event.startsWith("data: ")) throw new Error(`no event: ${event}`);
      const data = event.slice("data: ".length);
      return data === "[DONE]" ? data : JSON.parse(data);
    });
}

/** Sends bytes as they are and gives all that comes back until the connection closes. */
export function exchangeRaw(url: string, ...pieces: (string | Buffer)[]): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), hostname, () => {
      for (const piece of pieces) socket.write(piece);
    });
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("close", () => resolve(Buffer.concat(chunks).toString()));
    socket.on("error", (error) => (chunks.length > 0 ? undefined : reject(error)));
  });
}

/** Waits until something holds; fails after five seconds. */
export async function eventually(check: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!check()) {
    if (performance.now() > end) throw new Error(`never came true: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
