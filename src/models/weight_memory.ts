import { bytesPerElement, type DType, type TensorData, viewOf } from "../base/dtype.ts";
import type { Backend } from "../runtime/backend.ts";

/** What is asked of the backend at a time; of a slab that is not full, only what was written takes memory. */
const slabBytes = 64 * 2 ** 20;

/** Kernels like their operands on cache lines. */
const alignment = 64;

/**
 * Memory for the weights of a model that live and die together. Weights that programs read one after another lie one
 * after another, on huge pages however small each is: decoding streams all of them every step.
 */
export class WeightMemory {
  readonly #backend: Backend;
  #slab: TensorData | undefined;
  #used = 0;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Zeroed memory for one weight. */
  allocate(dtype: DType, elements: number): TensorData {
    const bytes = elements * bytesPerElement(dtype);
    if (bytes >= slabBytes / 4) return this.#backend.allocate(dtype, elements);
    if (this.#slab === undefined || this.#used + bytes > this.#slab.byteLength) {
      this.#slab = this.#backend.allocate("u8", slabBytes);
      this.#used = 0;
    }
    // The null backend, which computes nothing, has no memory to give.
    if (this.#slab.byteLength < slabBytes) return this.#backend.allocate(dtype, elements);
    const offset = this.#slab.byteOffset + this.#used;
    this.#used += Math.ceil(bytes / alignment) * alignment;
    return viewOf(dtype, this.#slab.buffer, offset, elements);
  }
}
