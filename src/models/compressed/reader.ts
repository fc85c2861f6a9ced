import type { TensorData } from "../../base/dtype.ts";
import { FileFormatError } from "../../base/errors.ts";
import { formatShape } from "../../base/shape.ts";
import { convertDType, type TensorInfo, type TensorReader } from "../../checkpoint/index.ts";
import type { ConfigJson } from "../family.ts";
import { dequantize, type IntegerMatrix, unpackNibbles } from "./codec.ts";
import { readsCompressed } from "./config.ts";

/** What belongs to a quantized weight beside it. */
const companions = /\.(weight_scale|weight_packed|weight_shape|weight_zero_point|weight_g_idx|input_scale)$/;

/** A folder of quantized weights that gives floats under the names of the model, and the integers too. */
export interface CompressedReader extends TensorReader {
  /** The integers of a quantized weight; undefined of weights that are floats. */
  integers(name: string): Promise<IntegerMatrix | undefined>;
}

/**
 * Reads a quantized folder through a reader of its tensors; undefined where the config says that it is not one.
 * @throws ConfigError, FileFormatError for quantizations that are not read here.
 */
export function openCompressed(stored: TensorReader, config: ConfigJson): CompressedReader | undefined {
  if (!readsCompressed(config, stored.path)) return undefined;
  return new Compressed(stored);
}

/** Whether a reader is of a quantized folder. */
export function isCompressed(reader: TensorReader): reader is CompressedReader {
  return reader instanceof Compressed;
}

class Compressed implements CompressedReader {
  readonly #stored: TensorReader;
  readonly #names: ReadonlySet<string>;

  constructor(stored: TensorReader) {
    this.#stored = stored;
    const packed = stored.names().filter((name) => name.endsWith(".weight_packed"));
    this.#names = new Set([
      ...stored.names().filter((name) => !companions.test(name)),
      ...packed.map((name) => name.replace(/_packed$/, "")),
    ]);
    const zero = stored.names().find((name) => /\.(weight_zero_point|weight_g_idx)$/.test(name));
    if (zero === undefined) return;
    throw new FileFormatError("unsupported_quantization", "a quantized folder has what is not read here", {
      where: `tensor "${zero}" of ${stored.path}`,
      expected: "symmetric weights in their own order",
      received: zero.endsWith("zero_point") ? "zero points" : "columns in another order",
    });
  }

  get path(): string {
    return this.#stored.path;
  }

  get metadata(): ReadonlyMap<string, string> {
    return this.#stored.metadata;
  }

  names(): string[] {
    return [...this.#names];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  info(name: string): TensorInfo {
    if (!this.#isQuantized(name)) return this.#stored.info(name);
    const shape = this.#shapeOf(name);
    return { dtype: "f32", shape, byteLength: 4 * shape[0] * shape[1] };
  }

  async readRange(name: string, offset: number, destination: Uint8Array): Promise<void> {
    if (!this.#isQuantized(name)) return await this.#stored.readRange(name, offset, destination);
    const { buffer, byteOffset } = await this.read(name);
    destination.set(new Uint8Array(buffer, byteOffset + offset, destination.byteLength));
  }

  async read(name: string): Promise<TensorData> {
    const matrix = await this.integers(name);
    return matrix === undefined ? await this.#stored.read(name) : dequantize(matrix);
  }

  async readInto(name: string, destination: Uint8Array): Promise<void> {
    if (!this.#isQuantized(name)) {
      await this.#stored.readInto(name, destination);
      return;
    }
    const { buffer, byteOffset, byteLength } = await this.read(name);
    destination.set(new Uint8Array(buffer, byteOffset, byteLength));
  }

  async integers(name: string): Promise<IntegerMatrix | undefined> {
    if (!this.#isQuantized(name)) return undefined;
    const isPacked = this.#stored.has(`${name}_packed`);
    const [rows, columns] = isPacked ? await this.#packedShape(name) : this.#shapeOf(name);
    const scaleName = `${name}_scale`;
    const { dtype, shape } = this.#stored.info(scaleName);
    const stored = convertDType(await this.#stored.read(scaleName), dtype, "f32") as Float32Array;
    // One scale of the whole matrix is the same scale for every row.
    const scales = stored.length === 1 ? new Float32Array(rows).fill(stored[0]!) : stored;
    const group = (rows * columns) / scales.length;
    if (!Number.isInteger(group) || columns % group !== 0) {
      throw this.#broken(scaleName, "a scale for each row or each group of a row", formatShape(shape));
    }
    const values = isPacked
      ? unpackNibbles((await this.#stored.read(`${name}_packed`)) as Int32Array, rows, columns)
      : ((await this.#stored.read(name)) as Int8Array);
    return { bits: isPacked ? 4 : 8, rows, columns, group, values, scales };
  }

  async close(): Promise<void> {
    await this.#stored.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #isQuantized(name: string): boolean {
    return this.#stored.has(`${name}_scale`) && this.has(name);
  }

  /** Rows and columns as the stored integers have them. Rows of 4 bits are whole words: see `#packedShape`. */
  #shapeOf(name: string): readonly [number, number] {
    const isPacked = this.#stored.has(`${name}_packed`);
    const stored = isPacked ? `${name}_packed` : name;
    const { dtype, shape } = this.#stored.info(stored);
    const expected = isPacked ? "i32" : "i8";
    if (dtype !== expected || shape.length !== 2) {
      throw this.#broken(stored, `a matrix of ${expected}`, `${dtype} ${formatShape(shape)}`);
    }
    return [shape[0]!, shape[1]! * (isPacked ? 8 : 1)];
  }

  async #packedShape(name: string): Promise<readonly [number, number]> {
    const [rows, most] = this.#shapeOf(name);
    const [statedRows, columns] = await this.#stored.read(`${name}_shape`);
    if (statedRows === rows && columns === most) return [rows, columns];
    throw this.#broken(
      `${name}_shape`,
      `[${rows}, ${most}], whole words of eight`,
      `[${statedRows}, ${columns}]`,
    );
  }

  #broken(name: string, expected: string, received: string): FileFormatError {
    return new FileFormatError(
      "bad_quantized_tensor",
      "a quantized folder holds a tensor that does not fit",
      {
        where: `tensor "${name}" of ${this.path}`,
        expected,
        received,
      },
    );
  }
}
