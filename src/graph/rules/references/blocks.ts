import { elementCount } from "../../../base/shape.ts";
import type { BlockFormat } from "../../ops.ts";
import type { ReferenceRule } from "../reference.ts";

type BlockOp = "quantize_blocks" | "dequantize_blocks";

/** Rounds where kernels round: whole numbers either are the same or are not. */
const f = Math.fround;

/** Meaning of the ops that make numbers smaller to send them (Wang et al., "ZeRO++", arXiv 2306.10209). */
export const blockReferences: { readonly [Op in BlockOp]: ReferenceRule<Op> } = {
  quantize_blocks: ([x], format, [valueShape, scaleShape]) => {
    const columns = x!.shape.at(-1)!;
    const values = new Float64Array(elementCount(valueShape!));
    const scales = new Float64Array(elementCount(scaleShape!));
    const zero = 2 ** (format.bits - 1);
    forEachBlock(scales.length, columns, format, (block, row, start, count) => {
      const part = x!.values.subarray(row * columns + start, row * columns + start + count).map(f);
      const largest = part.reduce((most, v) => (Number.isNaN(v) ? v : Math.max(most, Math.abs(v))), 0);
      scales[block] = f(largest / (zero - 1));
      const usable = largest >= 2 ** -100 && largest < Number.POSITIVE_INFINITY;
      const factor = usable ? f((zero - 1) / largest) : 0;
      for (let index = 0; index < count + (format.bits === 4 ? count % 2 : 0); index++) {
        const number = usable && index < count ? roundEven(f(part[index]! * factor)) : 0;
        store(values, valueShape!.at(-1)!, format, row, start + index, number + zero);
      }
    });
    return [values, scales];
  },
  dequantize_blocks: ([values, scales], { columns, ...format }, [shape]) => {
    const result = new Float64Array(elementCount(shape!));
    const zero = 2 ** (format.bits - 1);
    forEachBlock(scales!.values.length, columns, format, (block, row, start, count) => {
      for (let index = start; index < start + count; index++) {
        const number = read(values!.values, values!.shape.at(-1)!, format, row, index) - zero;
        result[row * columns + index] = f(number * scales!.values[block]!);
      }
    });
    return [result];
  },
};

function forEachBlock(
  count: number,
  columns: number,
  { block: size }: BlockFormat,
  visit: (block: number, row: number, start: number, count: number) => void,
): void {
  const perRow = Math.ceil(columns / size);
  for (let block = 0; block < count; block++) {
    const start = (block % perRow) * size;
    visit(block, Math.floor(block / perRow), start, Math.min(size, columns - start));
  }
}

function store(
  values: Float64Array,
  width: number,
  { bits }: BlockFormat,
  row: number,
  column: number,
  value: number,
): void {
  if (bits === 8) values[row * width + column] = value;
  else values[row * width + (column >> 1)]! += column % 2 === 0 ? value : 16 * value;
}

function read(
  values: Float64Array,
  width: number,
  { bits }: BlockFormat,
  row: number,
  column: number,
): number {
  if (bits === 8) return values[row * width + column]!;
  const byte = values[row * width + (column >> 1)]!;
  return column % 2 === 0 ? byte & 15 : byte >> 4;
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
