import type { TensorData } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { buildGraph, isLeaf } from "../../graph/graph.ts";
import type { ModelFacts } from "../../models/index.ts";
import type { AttentionContext } from "../../nn/attention.ts";
import type { Backend, Executable } from "../../runtime/backend.ts";
import { cacheCopy, cacheWrite, type PagedBatch, pagedAttention } from "../../tensor/functions.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { BlockCopy } from "../core/types.ts";
import type { EngineLimits } from "./options.ts";

/**
 * Keys and values of every layer: states [blocks * block size, groups, head size] that programs write and read in
 * place. Allocated once; which sequence holds which block is the scheduler's business.
 */
export class PagedCache {
  /** The memory of every state, by name. */
  readonly bindings: Readonly<Record<string, TensorData>>;
  readonly #backend: Backend;
  readonly #limits: EngineLimits;
  readonly #facts: ModelFacts;
  #copies: CopyProgram | undefined;

  constructor(backend: Backend, facts: ModelFacts, limits: EngineLimits) {
    this.#backend = backend;
    this.#limits = limits;
    this.#facts = facts;
    const elements = limits.blocks * limits.blockSize * facts.groups * facts.headSize;
    const bindings: Record<string, TensorData> = {};
    for (let layer = 0; layer < facts.layers; layer++) {
      for (const part of cacheParts) {
        bindings[stateName(layer, part)] = backend.allocate(limits.cacheDtype, elements);
      }
    }
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
        const keys = cacheWrite(this.#state(layer, "keys"), k, slots);
        const values = cacheWrite(this.#state(layer, "values"), v, slots);
        return pagedAttention(q, keys, values, batch, options);
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

  #state(layer: number, part: (typeof cacheParts)[number]): Tensor {
    const { blocks, blockSize, cacheDtype } = this.#limits;
    const shape = [blocks * blockSize, this.#facts.groups, this.#facts.headSize];
    return new Tensor(leaf(stateName(layer, part), "state", shape, cacheDtype));
  }

  #copyProgram(): CopyProgram {
    const bound = this.#limits.maximumSequences;
    const copies = symbolic("copies", bound);
    const input = (name: string): Tensor => new Tensor(leaf(name, "input", [copies], "i32"));
    const [sources, destinations] = [input("sources"), input("destinations")];
    const outputs = Array.from({ length: this.#facts.layers }, (_, layer) =>
      cacheParts.map((part) => {
        const state = this.#state(layer, part);
        if (!isLeaf(state.value)) throw new InternalError("the state of a cache is not a leaf");
        const copied = cacheCopy(state, sources, destinations, this.#limits.blockSize);
        return { name: stateName(layer, part), value: copied.value, target: state.value };
      }),
    );
    return {
      executable: this.#backend.compile(buildGraph("copy blocks", outputs.flat())),
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

const cacheParts = ["keys", "values"] as const;

function stateName(layer: number, part: (typeof cacheParts)[number]): string {
  return `cache.${layer}.${part}`;
}
