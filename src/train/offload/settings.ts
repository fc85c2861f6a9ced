import type { StoreOptions } from "../../runtime/store.ts";

/** What of a rank's training state lies on disk, and how it comes and goes. */
export interface OffloadSettings {
  /** The folder on whose disk states lie. */
  readonly path: string;
  /** How the file there is read and written. */
  readonly io?: StoreOptions;
  readonly parameters: boolean;
  readonly gradients: boolean;
  /** The optimizer's states. */
  readonly optimizer: boolean;
  /** Elements that are updated at a time: `sub_group_size`. */
  readonly subGroup: number;
  /** Bytes of parameters, gradients and activations under way at most, for reads and for writes each. */
  readonly window: number;
  /** The same while states are updated; `window` for both by default. */
  readonly updateWindow?: { readonly read: number; readonly write: number };
  /** Most bytes of the arena of a program. */
  readonly arenaLimit?: number;
  /** Where activations go as well that do not fit in `arenaLimit`: so many bytes of disk. */
  readonly spillBytes?: number;
  /** Sends everything there that is kept for the backward pass, whether it fits in memory or not. */
  readonly spillsAlways?: boolean;
  /**
   * Keeps a copy of the parameters in bf16 for forward and backward, which halves what they read. For activations
   * in bf16, whose products round weights to it anyway.
   */
  readonly halfParameters?: boolean;
}

/** Everything on disk, with buffers that suit a disk of a gigabyte or two a second. */
export function offloadAll(path: string): OffloadSettings {
  return {
    path,
    parameters: true,
    gradients: true,
    optimizer: true,
    subGroup: 2 ** 20,
    window: 2 ** 25,
  };
}
