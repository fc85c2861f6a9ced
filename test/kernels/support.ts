/** What the kernel tests share: tensors over typed arrays, seeded contents, runs on every instruction set. */
import {
  bytesPerElement,
  type DType,
  decode,
  dtypeCode,
  encode,
  type TensorData,
  viewOf,
} from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

/** A dense row-major tensor of a kernel test. */
export interface TestTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TensorData;
}

/** Every instruction set that this machine can run, `amx_emulated` included where it can. */
export function runnableIsas(): IsaName[] {
  const all: IsaName[] = ["scalar", "neon", "avx2", "avx512", "avx512bf16", "amx", "amx_emulated"];
  return all.filter((isa) => loadAddon().canRunIsa(isa));
}

/** The instruction sets above scalar that have their own variant of a kernel on this machine. */
export function variantsOf(kernel: string): IsaName[] {
  const built = new Set(
    loadAddon()
      .listKernels()
      .filter((entry) => entry.name === kernel)
      .map((entry) => entry.isa),
  );
  return runnableIsas().filter((isa) => isa !== "scalar" && built.has(isa));
}

/** The number of elements of a shape. */
export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** A tensor of zeros. */
export function zeros(dtype: DType, shape: readonly number[]): TestTensor {
  const bytes = elementsOf(shape) * bytesPerElement(dtype);
  return { dtype, shape, data: viewOf(dtype, new ArrayBuffer(bytes)) };
}

/** A tensor of the given numbers, rounded to `dtype`. */
export function tensorOf(dtype: DType, shape: readonly number[], values: ArrayLike<number>): TestTensor {
  if (values.length !== elementsOf(shape)) {
    throw new Error(`${values.length} values for the shape [${shape.join(", ")}]`);
  }
  return { dtype, shape, data: encode(dtype, values) };
}

/** A tensor of seeded normal numbers times `scale`, rounded to `dtype`. */
export function randomTensor(dtype: DType, shape: readonly number[], seed: number, scale = 1): TestTensor {
  const stream = new PhiloxStream(seed);
  return tensorOf(
    dtype,
    shape,
    Float64Array.from({ length: elementsOf(shape) }, () => scale * stream.nextNormal()),
  );
}

/** A tensor of seeded integers in [low, high). */
export function randomIntegers(
  shape: readonly number[],
  seed: number,
  low: number,
  high: number,
): TestTensor {
  const stream = new PhiloxStream(seed);
  return tensorOf(
    "i32",
    shape,
    Float64Array.from({ length: elementsOf(shape) }, () => low + stream.nextBelow(high - low)),
  );
}

/** The tensor's elements as float64 numbers. */
export function valuesOf(tensor: TestTensor): Float64Array {
  return decode(tensor.dtype, tensor.data);
}

/** A copy with memory of its own. */
export function copyOf(tensor: TestTensor): TestTensor {
  return { ...tensor, data: tensor.data.slice() };
}

/** The tensor's bytes, for comparing bits. */
export function bytesOf(tensor: TestTensor): Uint8Array {
  return new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
}

const absent: NativeTensor = { data: null, dtype: 0, shape: [] };

/** The tensor as the addon takes it; null is an absent optional operand. */
export function nativeTensor(tensor: TestTensor | null): NativeTensor {
  if (tensor === null) return absent;
  return { data: tensor.data, dtype: dtypeCode(tensor.dtype), shape: tensor.shape };
}

/** Runs one kernel, writing into `outputs`; returns the instruction set of the kernel that ran. */
export function runKernel(
  name: string,
  isa: IsaName,
  inputs: readonly (TestTensor | null)[],
  outputs: readonly (TestTensor | null)[],
  attributes: readonly number[] = [],
  threads = 2,
): IsaName {
  return loadAddon().runKernel(
    name,
    isa,
    inputs.map(nativeTensor),
    outputs.map(nativeTensor),
    attributes,
    threads,
  );
}

/** |actual - expected| / |expected| (Frobenius); the plain norm of `actual` where `expected` is zero. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`${actual.length} elements against ${expected.length}`);
  }
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < actual.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(norm === 0 ? difference : difference / norm);
}
