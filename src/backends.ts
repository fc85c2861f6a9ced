/** Every backend, for the places that choose one: the package's entry and the commands. */
export type { Backend } from "./runtime/backend.ts";
export { createNativeBackend, type NativeOptions } from "./runtime/native/backend.ts";
export { createLocalWorld, type LocalWorldOptions } from "./runtime/native/local_world.ts";
export { createMpiWorld, launchedRanks } from "./runtime/native/mpi_world.ts";
export { createNullBackend, type NullOptions } from "./runtime/null/backend.ts";
export { createReferenceBackend } from "./runtime/reference/backend.ts";
export { soloGroup } from "./runtime/solo_group.ts";
