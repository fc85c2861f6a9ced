import { fromF16Bits, toF16Bits } from "../../../base/dtype.ts";
import { groupsOf, paddedColumns, type QuantizedFormat } from "../../../base/quantized_format.ts";

/**
 * Quantization as the kernels do it, operation by operation in float32: its results are integers, which either are
 * the same or are not, so this meaning rounds where kernels round.
 */
const f = Math.fround;

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

const roundBetween = (value: number, low: number, high: number): number =>
  roundEven(Math.min(Math.max(value, low), high));

const inverseOrZero = (value: number): number => (Math.abs(value) >= 2 ** -100 ? f(1 / value) : 0);
const toF16 = (value: number): number => fromF16Bits(toF16Bits(value));

/** A row in bytes: values padded with zeros, and a scale and the sum of the bytes for each group. */
export interface QuantizedRow {
  readonly values: Float64Array;
  readonly scales: Float64Array;
  readonly sums: Float64Array;
}

/** What `quantize_rows` makes of a row. */
export function quantizeRow(row: Float64Array, group: number): QuantizedRow {
  const groups = groupsOf(group, row.length);
  const step = group === 0 ? row.length : group;
  const values = new Float64Array(paddedColumns(group, row.length));
  const scales = new Float64Array(groups);
  const sums = new Float64Array(groups);
  for (let g = 0; g < groups; g++) {
    const part = row.subarray(g * step, (g + 1) * step).map(f);
    const largest = part.reduce((most, x) => (Number.isNaN(x) ? x : Math.max(most, Math.abs(x))), 0);
    scales[g] = f(largest / 127);
    if (!(largest >= 2 ** -100) || largest === Number.POSITIVE_INFINITY) continue;
    const factor = f(127 / largest);
    part.forEach((x, i) => {
      const value = roundEven(f(x * factor));
      values[g * step + i] = value;
      sums[g]! += value;
    });
  }
  return { values, scales, sums };
}

/** A group of weights in integers: w = scale * q - minimum, q signed where the format has no minimum. */
export interface QuantizedGroup {
  readonly q: readonly number[];
  readonly scale: number;
  readonly minimum: number;
}

/** Step sizes that 4 bits try, relative to the plain one. */
const candidates = Array.from({ length: 20 }, (_, index) => 0.125 * index);

/** Sums in float32, in order. */
function sum(count: number, term: (index: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total = f(total + term(i));
  return total;
}

function fitNibbles(w: Float64Array): number {
  let extreme = 0;
  for (const x of w) if (Math.abs(x) > Math.abs(extreme)) extreme = x;
  let [best, bestScale] = [0, 0];
  for (const offset of candidates) {
    const factor = f(-(6.5 + offset) * inverseOrZero(extreme));
    const q = w.map((x) => roundBetween(f(x * factor), -8, 7));
    const products = sum(w.length, (i) => f(w[i]! * q[i]!));
    const scale = f(products * inverseOrZero(sum(w.length, (i) => q[i]! * q[i]!)));
    const explained = f(scale * products);
    if (explained > best) [best, bestScale] = [explained, scale];
  }
  return toF16(bestScale);
}

function fitRange(w: Float64Array, levels: number): { scale: number; minimum: number } {
  const [low, high] = [w.reduce((a, b) => Math.min(a, b)), w.reduce((a, b) => Math.max(a, b))];
  const total = sum(w.length, (i) => w[i]!);
  let [best, scale, minimum] = [Number.NEGATIVE_INFINITY, 0, 0];
  for (const offset of candidates) {
    const factor = f((levels - 1 + offset) * inverseOrZero(f(high - low)));
    const q = w.map((x) => roundBetween(f(f(x - low) * factor), 0, levels));
    const sums = sum(w.length, (i) => q[i]!);
    const squares = sum(w.length, (i) => q[i]! * q[i]!);
    const products = sum(w.length, (i) => f(w[i]! * q[i]!));
    const determinant = f(f(w.length * squares) - f(sums * sums));
    const covariance = f(f(w.length * products) - f(sums * total));
    const slope = f(covariance * inverseOrZero(determinant));
    const offsetBelow = f(f(f(slope * sums) - total) / w.length);
    const explained = f(f(slope * products) - f(offsetBelow * total));
    if (explained > best) [best, scale, minimum] = [explained, slope, offsetBelow];
  }
  return { scale: toF16(scale), minimum: toF16(minimum) };
}

/** What `quantize_matrix` makes of a group of a column. */
export function quantizeGroup(group: Float64Array, format: QuantizedFormat): QuantizedGroup {
  const w = group.map(f);
  const { bits, minimum: ranged } = format;
  if (ranged) {
    const levels = 2 ** bits - 1;
    const { scale, minimum } = fitRange(w, levels);
    const factor = inverseOrZero(scale);
    const shift = f(minimum * factor);
    return { q: [...w].map((x) => roundBetween(f(f(x * factor) + shift), 0, levels)), scale, minimum };
  }
  let scale: number;
  if (bits === 8) {
    const largest = w.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    scale = format.group === 0 ? f(largest / 127) : toF16(f(largest / 127));
  } else {
    scale = fitNibbles(w);
  }
  const factor = inverseOrZero(scale);
  const [low, high] = bits === 8 ? [-127, 127] : [-8, 7];
  return { q: [...w].map((x) => roundBetween(f(x * factor), low, high)), scale, minimum: 0 };
}
