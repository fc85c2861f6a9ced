import { InternalError } from "./errors.ts";

/** The element types of tensors. The order is the code that native code knows them by. */
export const dtypes = ["f32", "bf16", "f16", "i32", "u8", "i8", "f64"] as const;

/** One element type; `bf16` and `f16` are held as their 16 raw bits. */
export type DType = (typeof dtypes)[number];

const bytesByDType: Record<DType, number> = { f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1, i8: 1, f64: 8 };

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return bytesByDType[dtype];
}

/** The number by which native code knows a dtype. */
export function dtypeCode(dtype: DType): number {
  return dtypes.indexOf(dtype);
}

/** True of the dtypes that hold fractions. */
export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "bf16" || dtype === "f16" || dtype === "f64";
}

/** The typed arrays that can hold tensor data; 16-bit floats travel as their raw bits. */
export type TensorData = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array | Int8Array;

/** A view of `dtype` elements over `buffer`. */
export function viewOf(
  dtype: DType,
  buffer: ArrayBufferLike,
  byteOffset = 0,
  length = Math.floor((buffer.byteLength - byteOffset) / bytesPerElement(dtype)),
): TensorData {
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length);
    case "f64":
      return new Float64Array(buffer, byteOffset, length);
    case "bf16":
    case "f16":
      return new Uint16Array(buffer, byteOffset, length);
    case "i32":
      return new Int32Array(buffer, byteOffset, length);
    case "u8":
      return new Uint8Array(buffer, byteOffset, length);
    case "i8":
      return new Int8Array(buffer, byteOffset, length);
    default:
      throw new InternalError(`no view of dtype ${String(dtype satisfies never)}`);
  }
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** The bf16 bits nearest to `value`, ties to even; NaN stays NaN. */
export function toBf16Bits(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The number that bf16 bits stand for. */
export function fromBf16Bits(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0]!;
}

/** The IEEE half-precision bits nearest to `value`, ties to even; overflow becomes infinity. */
export function toF16Bits(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal halves are multiples of 2^-24.
    const scaled = Math.abs(scratchFloat[0]!) * 2 ** 24;
    const floor = Math.floor(scaled);
    const remainder = scaled - floor;
    const up = remainder > 0.5 || (remainder === 0.5 && (floor & 1) === 1);
    return sign | (floor + (up ? 1 : 0));
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** The number that IEEE half-precision bits stand for. */
export function fromF16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Rounds a number to what `dtype` can hold. */
export function roundTo(dtype: DType, value: number): number {
  switch (dtype) {
    case "f64":
      return value;
    case "f32":
      return Math.fround(value);
    case "bf16":
      return fromBf16Bits(toBf16Bits(value));
    case "f16":
      return fromF16Bits(toF16Bits(value));
    case "i32":
      return Math.trunc(value) | 0;
    case "u8":
      return Math.trunc(value) & 0xff;
    case "i8":
      return (Math.trunc(value) << 24) >> 24;
    default:
      throw new InternalError(`no rounding for dtype ${String(dtype satisfies never)}`);
  }
}

/** Typed data from plain numbers, rounded to `dtype`. */
export function encode(dtype: DType, values: ArrayLike<number>): TensorData {
  const data = viewOf(dtype, new ArrayBuffer(values.length * bytesPerElement(dtype)));
  const toBits = dtype === "bf16" ? toBf16Bits : dtype === "f16" ? toF16Bits : undefined;
  for (let i = 0; i < values.length; i++) data[i] = toBits ? toBits(values[i]!) : values[i]!;
  return data;
}

/** Plain numbers (float64) from typed data of `dtype`. */
export function decode(dtype: DType, data: TensorData): Float64Array {
  const fromBits = dtype === "bf16" ? fromBf16Bits : dtype === "f16" ? fromF16Bits : undefined;
  const values = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) values[i] = fromBits ? fromBits(data[i]!) : data[i]!;
  return values;
}
