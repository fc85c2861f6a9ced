/**
 * The serving room: the engine that runs many requests at once, and what it takes to load a model for it. The
 * package's entry `slipstream/serve` is src/serve.ts, which chooses a backend.
 */
export { Engine } from "./engine/engine.ts";
export { RequestError, type RequestErrorCode } from "./engine/errors.ts";
export type { CacheDType, EngineLimits, EngineParts, EngineSettings } from "./engine/options.ts";
export type * from "./engine/types.ts";
export { loadForServing, type ServingLoadOptions } from "./load.ts";
