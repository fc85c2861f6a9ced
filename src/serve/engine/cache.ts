import type { DType, TensorData } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { elementCount, symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { buildGraph, isLeaf } from "../../graph/graph.ts";
import type { ModelFacts } from "../../models/index.ts";
import type { AttentionContext } from "../../nn/attention.ts";
import type { Backend, Executable } from "../../runtime/backend.ts";
import {
  cacheCopy,
  cacheWrite,
  cacheWriteQuantized,
  type PagedBatch,
  pagedAttention,
  type QuantizedCache,
} from "../../tensor/functions.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { BlockCopy } from "../core/types.ts";
import type { EngineLimits } from "./options.ts";

/**
 * Keys and values of every layer: states [blocks * block size, groups, head size] that programs write and read in
 * place; in int8 with states [blocks * block size, groups] of scales beside them. Allocated once; which sequence holds
 * which block is the scheduler's business.
 */
export class PagedCache {
  /** The memory of every state, by name. */
  readonly bindings: Readonly<Record<string, TensorData>>;
  readonly #backend: Backend;
  readonly #limits: EngineLimits;
  readonly #slots: number;
  readonly #states: readonly LayerStates[];
  #copies: CopyProgram | undefined;

  constructor(backend: Backend, facts: ModelFacts, limits: EngineLimits) {
    this.#backend = backend;
    this.#limits = limits;
    this.#slots = limits.blocks * limits.blockSize;
    const bindings: Record<string, TensorData> = {};
    const state = (name: string, dtype: DType, inner: readonly number[]): CacheState => {
      bindings[name] = backend.allocate(dtype, this.#slots * elementCount(inner));
      return { name, dtype, inner };
    };
    const half = (name: string): CacheHalf => {
      const inner = [facts.groups, facts.headSize];
      if (limits.cacheDtype !== "int8") return { cache: state(name, limits.cacheDtype, inner) };
      return { cache: state(name, "i8", inner), scales: state(`${name}.scales`, "f32", [facts.groups]) };
    };
    this.#states = Array.from({ length: facts.layers }, (_, layer) => ({
      keys: half(`cache.${layer}.keys`),
      values: half(`cache.${layer}.values`),
    }));
    this.bindings = bindings;
    // The machine hands out memory when it is first written: a small cache is taken at once, so that the process
    // does not grow while it serves; for a large one that would take seconds.
    const memory = Object.values(bindings);
    if (memory.reduce((total, { byteLength }) => total + byteLength, 0) <= takenAtOnce) {
      for (const data of memory) data.fill(0);
    }
    this.bindings = bindings;
  }

  /** Attention over this cache: what a layer computes is written at `slots` i32 [tokens] first. */
  context(slots: Tensor, batch: PagedBatch): AttentionContext {
    return {
      attend: (layer, q, k, v, options) => {
        const { keys, values } = this.#states[layer]!;
        if (keys.scales === undefined || values.scales === undefined) {
          const allKeys = cacheWrite(this.#leaf(keys.cache), k, slots);
          const allValues = cacheWrite(this.#leaf(values.cache), v, slots);
          return pagedAttention(q, allKeys, allValues, batch, options);
        }
        const write = (cache: CacheState, scales: CacheState, rows: Tensor): QuantizedCache =>
          cacheWriteQuantized({ cache: this.#leaf(cache), scales: this.#leaf(scales) }, rows, slots);
        const allKeys = write(keys.cache, keys.scales, k);
        const allValues = write(values.cache, values.scales, v);
        return pagedAttention(q, allKeys, allValues, batch, options);
      },
    };
  }

  /** Copies blocks in every layer, in order. The program for it is made when it is first needed. */
  async copy(copies: readonly BlockCopy[]): Promise<void> {
    this.#copies ??= this.#copyProgram();
    const { executable, sources, destinations } = this.#copies;
    for (let first = 0; first < copies.length; first += sources.length) {
      const part = copies.slice(first, first + sources.length);
      part.forEach(({ source, destination }, index) => {
        sources[index] = source;
        destinations[index] = destination;
      });
      await executable.run({ ...this.bindings, sources, destinations }, { copies: part.length });
    }
  }

  /** Frees native memory. */
  dispose(): void {
    this.#copies?.executable.dispose();
  }

  #leaf({ name, dtype, inner }: CacheState): Tensor {
    return new Tensor(leaf(name, "state", [this.#slots, ...inner], dtype));
  }

  #copyProgram(): CopyProgram {
    const bound = this.#limits.maximumSequences;
    const copies = symbolic("copies", bound);
    const input = (name: string): Tensor => new Tensor(leaf(name, "input", [copies], "i32"));
    const [sources, destinations] = [input("sources"), input("destinations")];
    const states = this.#states.flatMap(({ keys, values }) => [keys, values].flatMap(statesOf));
    const outputs = states.map((state) => {
      const { value } = this.#leaf(state);
      if (!isLeaf(value)) throw new InternalError("the state of a cache is not a leaf");
      const copied = cacheCopy(new Tensor(value), sources, destinations, this.#limits.blockSize);
      return { name: state.name, value: copied.value, target: value };
    });
    return {
      executable: this.#backend.compile(buildGraph("copy blocks", outputs)),
      sources: new Int32Array(bound),
      destinations: new Int32Array(bound),
    };
  }
}

/** Bytes. */
const takenAtOnce = 64 * 2 ** 20;

interface CopyProgram {
  readonly executable: Executable;
  readonly sources: Int32Array;
  readonly destinations: Int32Array;
}

/** Memory of one kind for every slot. */
interface CacheState {
  readonly name: string;
  readonly dtype: DType;
  /** Its shape after the slots. */
  readonly inner: readonly number[];
}

interface CacheHalf {
  readonly cache: CacheState;
  /** Where the cache is in int8. */
  readonly scales?: CacheState;
}

interface LayerStates {
  readonly keys: CacheHalf;
  readonly values: CacheHalf;
}

function statesOf({ cache, scales }: CacheHalf): CacheState[] {
  return scales === undefined ? [cache] : [cache, scales];
}
