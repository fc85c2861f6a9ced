import { fromF16Bits, toF16Bits } from "../../../base/dtype.ts";
import {
  groupsOf,
  headerBytes,
  packedBytes,
  paddedColumns,
  panelColumns,
  type QuantizedFormat,
  type QuantizedParameter,
} from "../../../base/quantized_format.ts";

/**
 * A quantized matrix [rows, columns], in the packed layout of native/kernels/quantized/layout.h: stored integers
 * are unsigned, w = scale * (q - zero) - minimum.
 */
export class QuantizedPanels {
  readonly format: QuantizedFormat;
  readonly rows: number;
  readonly columns: number;
  readonly groups: number;
  /** Elements of a group, the padding of the last one included. */
  readonly group: number;
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #groupBytes: number;

  /** @param bytes packed before; by default a matrix of zeros. */
  constructor({ format, rows, columns }: QuantizedParameter, bytes?: ArrayLike<number>) {
    this.format = format;
    this.rows = rows;
    this.columns = columns;
    this.groups = groupsOf(format.group, columns);
    this.group = format.group === 0 ? paddedColumns(0, columns) : format.group;
    this.#groupBytes = headerBytes(format) + (panelColumns * this.group * format.bits) / 8;
    this.bytes =
      bytes === undefined ? new Uint8Array(packedBytes(format, rows, columns)) : Uint8Array.from(bytes);
    this.#view = new DataView(this.bytes.buffer);
    if (bytes === undefined) this.#clear();
  }

  /** What is subtracted from stored integers. */
  get zero(): number {
    const { bits, minimum } = this.format;
    return minimum ? 0 : 2 ** (bits - 1);
  }

  /** The integer stored for element `k` of a row; `k` counts the padding of groups. */
  get(row: number, k: number): number {
    const { byte, shift } = this.#place(row, k);
    return (this.bytes[byte]! >> shift) & (2 ** this.format.bits - 1);
  }

  set(row: number, k: number, value: number): void {
    const { byte, shift } = this.#place(row, k);
    const mask = (2 ** this.format.bits - 1) << shift;
    this.bytes[byte] = (this.bytes[byte]! & ~mask) | (value << shift);
  }

  scale(row: number, group: number): number {
    const start = this.#groupStart(row, group);
    if (this.format.group === 0) return this.#view.getFloat32(start + 4 * (row % panelColumns), true);
    return fromF16Bits(this.#view.getUint16(start + 2 * (row % panelColumns), true));
  }

  minimum(row: number, group: number): number {
    if (!this.format.minimum) return 0;
    return fromF16Bits(this.#view.getUint16(this.#minimumPlace(row, group), true));
  }

  setScale(row: number, group: number, value: number): void {
    const start = this.#groupStart(row, group);
    if (this.format.group === 0) this.#view.setFloat32(start + 4 * (row % panelColumns), value, true);
    else this.#view.setUint16(start + 2 * (row % panelColumns), toF16Bits(value), true);
  }

  setMinimum(row: number, group: number, value: number): void {
    this.#view.setUint16(this.#minimumPlace(row, group), toF16Bits(value), true);
  }

  /** The values that the integers of a row stand for. */
  row(row: number): Float64Array {
    return Float64Array.from({ length: this.columns }, (_, k) => {
      const group = Math.floor(k / this.group);
      return this.scale(row, group) * (this.get(row, k) - this.zero) - this.minimum(row, group);
    });
  }

  #groupStart(row: number, group: number): number {
    return (Math.floor(row / panelColumns) * this.groups + group) * this.#groupBytes;
  }

  #minimumPlace(row: number, group: number): number {
    return this.#groupStart(row, group) + 2 * panelColumns + 2 * (row % panelColumns);
  }

  #place(row: number, k: number): { readonly byte: number; readonly shift: number } {
    const within = k % this.group;
    const high = this.format.bits === 4 && within >= this.group / 2;
    const near = high ? within - this.group / 2 : within;
    const start = this.#groupStart(row, Math.floor(k / this.group)) + headerBytes(this.format);
    const byte = start + Math.floor(near / 4) * 4 * panelColumns + 4 * (row % panelColumns) + (near % 4);
    return { byte, shift: high ? 4 : 0 };
  }

  #clear(): void {
    const rows = Math.ceil(this.rows / panelColumns) * panelColumns;
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < this.groups * this.group; k++) this.set(row, k, this.zero);
    }
  }
}
