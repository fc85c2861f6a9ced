/**
 * The server: one port that answers from the moment it listens. Until an engine is attached, and again while it
 * drains, everything but /health, /metrics and /version is refused with 503.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { ConfigError, RunError, type SlipstreamError } from "../../base/errors.ts";
import type { ServingEngine } from "../engine/types.ts";
import { GrammarCompiler } from "../structured/compiler.ts";
import { ClientGone } from "./answers.ts";
import { KeyRing } from "./auth.ts";
import { readObject } from "./body.ts";
import { answerClientError } from "./client_error.ts";
import { applyCors } from "./cors.ts";
import { type ApiError, toApiError, unavailable } from "./errors.ts";
import { Exchange, type Service } from "./exchange.ts";
import { createLogger, type Logger } from "./log.ts";
import { ServerMetrics } from "./metrics.ts";
import { defaultBodyBytes, defaultTimeouts, type ServerOptions, type ServerTimeouts } from "./options.ts";
import { findRoute, type PostRoute, type Route } from "./routes.ts";

/** Milliseconds for which finished answers may still be on their way to slow clients at the end. */
const flushMilliseconds = 1000;

/** Addresses that only this machine reaches. */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

/** What the server says of itself at /health. */
type State = { readonly status: "ok" | "loading" | "draining" } | { readonly status: "dead"; reason: string };

/** An OpenAI-compatible HTTP server. */
export class ApiServer {
  readonly #options: ServerOptions;
  readonly #timeouts: ServerTimeouts;
  readonly #server: Server;
  readonly #keys: KeyRing;
  readonly #log: Logger;
  readonly #metrics = new ServerMetrics();
  readonly #exchanges = new Set<Exchange>();
  readonly #answering = new WeakMap<Duplex, ServerResponse>();
  #address: AddressInfo | undefined;
  #service: Service | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: ServerOptions) {
    this.#options = options;
    this.#timeouts = { ...defaultTimeouts, ...options.timeouts };
    this.#keys = new KeyRing(options.apiKeys ?? []);
    this.#log = options.logger ?? createLogger(options.logLevel ?? "info");
    const { headers, request, keepAlive } = this.#timeouts;
    this.#server = createServer({
      headersTimeout: headers,
      requestTimeout: request,
      keepAliveTimeout: keepAlive,
      connectionsCheckingInterval: Math.min(1000, headers),
      maxHeaderSize: 16 * 1024,
      noDelay: true,
    });
    const handle = (incoming: IncomingMessage, response: ServerResponse): void => {
      void this.#handle(incoming, response);
    };
    this.#server.on("request", handle);
    // The body is asked for only once the headers were found good.
    this.#server.on("checkContinue", handle);
    this.#server.on("clientError", (error, socket) => {
      answerClientError(error, socket, this.#answering.get(socket)?.headersSent === true);
    });
  }

  /**
   * Opens the port.
   * @throws RunError where it is taken or not allowed; ConfigError where the host is none of this machine's
   */
  static async listen(options: ServerOptions = {}): Promise<ApiServer> {
    const server = new ApiServer(options);
    const { host = "127.0.0.1", port = 8000 } = options;
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", (error) => reject(explainListen(error, host, port)));
      server.#server.listen({ host, port }, resolve);
    });
    server.#address = server.#server.address() as AddressInfo;
    if (!isLoopback(host) && server.#keys.open) {
      server.#log.warning("anybody who reaches this address can use the model: set an API key", { host });
    }
    return server;
  }

  /** Where the server listens or listened, such as `http://127.0.0.1:8000`. */
  get url(): string {
    const { address, port, family } = this.#address!;
    return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  /** Starts to serve a model. */
  attach(engine: ServingEngine): void {
    const options = this.#options;
    const modelNames = options.modelNames?.length ? options.modelNames : [engine.modelName];
    this.#metrics.watch(engine, modelNames[0]!);
    let grammars: GrammarCompiler | undefined;
    this.#service = {
      engine,
      get grammars() {
        grammars ??= new GrammarCompiler(engine);
        return grammars;
      },
      modelNames,
      created: Math.floor(Date.now() / 1000),
      limits: {
        bodyBytes: options.maximumBodyBytes ?? defaultBodyBytes,
        answers: options.maximumAnswers ?? 128,
        embeddings: options.maximumEmbeddings ?? 2048,
      },
      stream: { highWater: options.highWater ?? 64 * 1024, stallMilliseconds: this.#timeouts.stall },
      chatTemplate: options.chatTemplate,
    };
  }

  /**
   * Refuses new requests, lets those that run finish, cuts them at the timeout, and closes the port. The engine
   * is drained, not disposed of.
   */
  close(options: { readonly timeoutSeconds?: number } = {}): Promise<void> {
    this.#closing ??= this.#drain(options.timeoutSeconds ?? 30);
    return this.#closing;
  }

  async #drain(timeoutSeconds: number): Promise<void> {
    this.#log.info("draining", { requests: this.#exchanges.size });
    await this.#service?.engine.drain({ timeoutSeconds });
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const cut = setTimeout(() => this.#server.closeAllConnections(), flushMilliseconds);
    await closed;
    clearTimeout(cut);
  }

  get #state(): State {
    if (this.#closing !== undefined) return { status: "draining" };
    const health = this.#service?.engine.health;
    if (health === undefined) return { status: "loading" };
    if (health.state === "dead") return { status: "dead", reason: health.reason };
    return { status: health.state === "ready" ? "ok" : "draining" };
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response, this.#log);
    // A connection that breaks is told by `close`.
    request.on("error", () => {});
    response.on("error", () => {});
    this.#exchanges.add(exchange);
    this.#answering.set(request.socket, response);
    response.setHeader("x-request-id", exchange.id);
    if (this.#closing !== undefined) response.setHeader("connection", "close");
    const begun = performance.now();
    let pattern = "unknown";
    response.on("close", () => {
      this.#exchanges.delete(exchange);
      this.#record(exchange, pattern, (performance.now() - begun) / 1000);
    });
    try {
      if (applyCors(exchange, this.#options.corsOrigins ?? [])) return;
      const route = findRoute(request.method ?? "", request.url ?? "");
      pattern = route.pattern;
      await this.#answer(route, exchange);
    } catch (error) {
      this.#fail(error, exchange);
    }
    this.#release(exchange);
  }

  async #answer(route: Route, exchange: Exchange): Promise<void> {
    switch (route.kind) {
      case "health": {
        const state = this.#state;
        return exchange.sendJson(state, state.status === "ok" ? 200 : 503);
      }
      case "metrics":
        return exchange.send(200, this.#metrics.contentType, await this.#metrics.text());
      case "version":
        return exchange.sendJson({ version: this.#options.version ?? "unknown" });
    }
    exchange.key = this.#keys.identify(exchange.request.headers.authorization);
    const service = this.#requireService();
    if (route.kind === "get") return route.handle(exchange, service);
    this.#requireRoom(route, service);
    const body = await readObject(exchange.request, exchange.response, service.limits.bodyBytes);
    await route.handle(body, exchange, service);
  }

  /** @throws ApiError 503 unless the engine takes requests */
  #requireService(): Service {
    const state = this.#state;
    if (state.status === "ok") return this.#service!;
    if (state.status === "dead") throw unavailable("the model failed and cannot answer", "engine_dead");
    const doing = state.status === "loading" ? "the model is still loading" : "the server is shutting down";
    throw unavailable(doing, "not_ready");
  }

  /** @throws ApiError 503 where the engine would refuse another request, whatever it asks for */
  #requireRoom(route: PostRoute, { engine }: Service): void {
    const { limits, statistics } = engine;
    if (!route.queued || limits === undefined) return;
    // Those that the next step can start do not wait for a place.
    const places = Math.max(0, limits.maximumSequences - statistics.running);
    if (statistics.waiting - places < limits.maximumWaiting) return;
    throw unavailable(`the queue is full: ${limits.maximumWaiting} requests wait already`, "queue_full");
  }

  #fail(error: unknown, exchange: Exchange): void {
    if (error instanceof ClientGone || exchange.gone) {
      exchange.response.destroy();
      return;
    }
    const answer = toApiError(error);
    this.#logFailure(answer, exchange);
    // Too late for a status: a broken connection says that the answer is not whole.
    if (exchange.response.headersSent) exchange.response.destroy();
    else exchange.sendError(answer);
  }

  #logFailure(answer: ApiError, exchange: Exchange): void {
    if (answer.status < 500 || answer.status === 503) return;
    const cause = answer.cause ?? answer;
    const detail = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    this.#log.error("request failed", { request_id: exchange.id, code: answer.code, detail });
  }

  /** Sees to it that a client cannot hold the connection: neither by not reading, nor by sending on and on. */
  #release({ request, response }: Exchange): void {
    const { stall, linger } = this.#timeouts;
    // Counts from the last byte that the client took: a long answer may take as long as it needs.
    if (!response.writableFinished && !response.destroyed)
      response.setTimeout(stall, () => response.destroy());
    if (request.complete || request.destroyed) return;
    // What is left of a refused body is thrown away, so that the client comes to read the refusal.
    request.resume();
    const { socket } = request;
    const cut = setTimeout(() => {
      if (!request.complete) socket.destroy();
    }, linger).unref();
    request.on("close", () => clearTimeout(cut));
  }

  #record(
    { id, request, response, promptTokens, answerTokens }: Exchange,
    route: string,
    seconds: number,
  ): void {
    // As nginx writes it: the client left before its answer was whole.
    const status = response.writableFinished ? response.statusCode : 499;
    const method = request.method ?? "";
    this.#metrics.answered(route, method, status);
    const quiet = route === "/health" || route === "/metrics";
    this.#log[quiet ? "debug" : "info"]("request", {
      request_id: id,
      method,
      route,
      status,
      seconds: Number(seconds.toFixed(6)),
      prompt_tokens: promptTokens,
      answer_tokens: answerTokens,
    });
  }
}

function explainListen(error: NodeJS.ErrnoException, host: string, port: number): SlipstreamError {
  const where = `${host}:${port}`;
  switch (error.code) {
    case "EADDRINUSE":
      return new RunError("port_in_use", "another program listens there already", {
        where,
        hint: "choose another --port, or 0 for any free one",
        cause: error,
      });
    case "EACCES":
      return new RunError("port_not_allowed", "this user may not listen there", {
        where,
        hint: "choose a --port of 1024 or more",
        cause: error,
      });
    default:
      return new ConfigError("bad_host", `cannot listen there (${error.code ?? error.message})`, {
        where,
        expected: "a --host of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them",
        cause: error,
      });
  }
}
