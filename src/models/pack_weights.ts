import type { DType, TensorData } from "../base/dtype.ts";
import {
  type BlockType,
  formatOfBlocks,
  packedBytes,
  type QuantizedParameter,
} from "../base/quantized_format.ts";
import { leaf } from "../graph/build.ts";
import { apply, buildGraph, type Value } from "../graph/graph.ts";
import type { Backend, Executable } from "../runtime/backend.ts";
import type { WeightMemory } from "./weight_memory.ts";

/**
 * Makes packed weights (u8, `QuantizedParameter`) with a backend's own kernels. Programs are compiled once a
 * shape; call `dispose` when all weights are made.
 */
export class WeightPacker {
  readonly #backend: Backend;
  readonly #memory: WeightMemory;
  readonly #programs = new Map<string, Executable>();

  /** @param memory where packed weights are to lie */
  constructor(backend: Backend, memory: WeightMemory) {
    this.#backend = backend;
    this.#memory = memory;
  }

  /** Packs the raw bytes of GGUF blocks of a matrix [rows, columns] in memory of their own. */
  async repack(type: BlockType, rows: number, columns: number, blocks: Uint8Array): Promise<TensorData> {
    const parameter = { format: formatOfBlocks(type), rows, columns };
    return await this.#run(`repack ${type} ${rows} ${columns}`, parameter, blocks, (name) =>
      apply("repack_blocks", [leaf(name, "input", [blocks.length], "u8")], { type, rows, columns }),
    );
  }

  /** Quantizes a matrix of floats [rows, columns] into packed weights in memory of their own. */
  async quantize(parameter: QuantizedParameter, matrix: TensorData, dtype: DType): Promise<TensorData> {
    const { format, rows, columns } = parameter;
    const key = `quantize ${JSON.stringify(format)} ${dtype} ${rows} ${columns}`;
    return await this.#run(key, parameter, matrix, (name) =>
      apply("quantize_matrix", [leaf(name, "input", [rows, columns], dtype)], { format }),
    );
  }

  dispose(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#programs.clear();
  }

  async #run(
    key: string,
    { format, rows, columns }: QuantizedParameter,
    source: TensorData,
    build: (inputName: string) => Value,
  ): Promise<TensorData> {
    let program = this.#programs.get(key);
    if (program === undefined) {
      program = this.#backend.compile(buildGraph(key, [{ name: "packed", value: build("source") }]));
      this.#programs.set(key, program);
    }
    const packed = this.#memory.allocate("u8", packedBytes(format, rows, columns));
    await program.run({ source, packed });
    return packed;
  }
}
