/** The package's entry `slipstream/serve`: models that answer many requests at once, in process or over HTTP. */
import { createNativeBackend, createReferenceBackend } from "./backends.ts";
import {
  type EngineSettings,
  loadForServing,
  Engine as ServedEngine,
  type ServingLoadOptions,
} from "./serve/index.ts";

export { type RunningServer, type ServerOptions, serve } from "./serve/http/index.ts";
export type * from "./serve/index.ts";
export { RequestError } from "./serve/index.ts";

/** Options of `Engine.load`. */
export interface EngineLoadOptions extends EngineSettings, ServingLoadOptions {
  /** "native" by default; "reference" computes in float64 TypeScript, for checks on tiny models. */
  readonly backend?: "native" | "reference";
}

/** Serves one model to many requests at once: continuous batching over a paged cache. */
export const Engine = Object.assign(ServedEngine, { load: loadEngine });
export type Engine = ServedEngine;

/**
 * Loads a model folder and starts an engine on it.
 * @throws SlipstreamError saying what is wrong with which file or setting.
 */
export async function loadEngine(path: string, options: EngineLoadOptions = {}): Promise<ServedEngine> {
  const { trace } = options;
  const backend =
    options.backend === "reference"
      ? createReferenceBackend()
      : createNativeBackend(trace === undefined ? {} : { trace });
  return ServedEngine.create({ ...options, ...(await loadForServing(backend, path, options)) });
}
