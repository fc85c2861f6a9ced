import type { ServingEngine } from "../engine/types.ts";
import type { ServerOptions } from "./options.ts";
import { ApiServer } from "./server.ts";

export { createLogger, type LogFields, type Logger, type LogLevel, logLevels } from "./log.ts";
export { defaultBodyBytes, type ServerOptions, type ServerTimeouts } from "./options.ts";
export { ApiServer } from "./server.ts";

/** A server that answers. */
export interface RunningServer {
  /** Where, such as `http://127.0.0.1:8000`. */
  readonly url: string;
  /**
   * Refuses new requests, lets those that run finish, cuts them after `timeoutSeconds` (30 by default), and
   * closes the port. The engine is drained, not disposed of.
   */
  close(options?: { readonly timeoutSeconds?: number }): Promise<void>;
}

/**
 * Serves a model over HTTP as OpenAI does: completions, chat, embeddings, metrics and health.
 * @throws RunError where the port is taken; ConfigError where the host is none of this machine's
 */
export async function serve(engine: ServingEngine, options: ServerOptions = {}): Promise<RunningServer> {
  const server = await ApiServer.listen(options);
  server.attach(engine);
  return server;
}
