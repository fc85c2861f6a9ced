/** DeepSpeed's universal checkpoints, made of safetensors. */
export { findUniversal } from "./layout.ts";
export { openUniversal, type UniversalCheckpoint } from "./reader.ts";
export {
  findUniversalStates,
  isUniversal,
  saveUniversalStates,
  type UniversalProgress,
  type UniversalStates,
} from "./states.ts";
