/** Runs one kernel every way this machine can and holds the results against float64 reference math. */
import { expect } from "vitest";
import { bytesPerElement, type DType, viewOf } from "../../src/base/dtype.ts";
import {
  bytesOf,
  elementsOf,
  relativeError,
  runKernel,
  type TestTensor,
  valuesOf,
  variantsOf,
} from "./support.ts";

/** An output to make: with `initial` contents where the kernel reads them. */
export interface OutputSpecification {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly initial?: TestTensor;
  /** What reference math says, in float64. */
  readonly expected: ArrayLike<number>;
  /** Where results are differences: the sums of the terms' magnitudes, against which errors are measured. */
  readonly terms?: ArrayLike<number>;
}

/** One case of a kernel. */
export interface KernelCase {
  readonly name: string;
  readonly inputs: readonly (TestTensor | null)[];
  readonly outputs: readonly (OutputSpecification | null)[];
  readonly attributes?: readonly number[];
  /** Elements that one result sums over: the bound grows with its square root. */
  readonly reduction?: number;
  /** Instead of the bound of CORRECTNESS.md. */
  readonly bound?: number;
}

const guard = 67;

/** A tensor inside a larger array, so that a write beyond it shows (and its address is not aligned). */
function guarded(specification: OutputSpecification): { tensor: TestTensor; intact: () => boolean } {
  const { dtype, shape, initial } = specification;
  const elements = elementsOf(shape);
  const whole = viewOf(dtype, new ArrayBuffer((elements + 2 * guard) * bytesPerElement(dtype))).fill(77);
  const data = whole.subarray(guard, guard + elements);
  if (initial) data.set(initial.data);
  const intact = () =>
    whole.subarray(0, guard).every((value) => value === 77) &&
    whole.subarray(guard + elements).every((value) => value === 77);
  return { tensor: { dtype, shape, data }, intact };
}

/** |actual - expected| over the norm of the terms that the expected numbers are made of. */
function errorOf(actual: Float64Array, expected: ArrayLike<number>, terms: ArrayLike<number>): number {
  const zeros = new Float64Array(actual.length);
  const difference = actual.map((value, i) => value - expected[i]!);
  return relativeError(difference, zeros) / (relativeError(terms, zeros) || 1);
}

/** The largest relative error allowed: float32 arithmetic, and one rounding to the output's dtype. */
export function boundOf(dtype: DType, reduction: number): number {
  if (dtype === "bf16") return 4e-3;
  if (dtype === "f16") return 5e-4;
  return 1e-6 * Math.sqrt(reduction);
}

/**
 * Runs the case on every instruction set and on 1, 2 and 3 threads: results within the bound of the
 * reference and of the scalar twin, the same bits on any number of threads, nothing written beside the outputs.
 */
export function checkKernel(test: KernelCase): void {
  const bound = (dtype: DType) => test.bound ?? boundOf(dtype, test.reduction ?? 1);
  let twin: Float64Array[] | undefined;
  for (const isa of ["scalar" as const, ...variantsOf(test.name)]) {
    let first: Uint8Array[] | undefined;
    for (const threads of [1, 2, 3]) {
      const made = test.outputs.map((output) => (output ? guarded(output) : null));
      runKernel(
        test.name,
        isa,
        test.inputs,
        made.map((output) => output?.tensor ?? null),
        test.attributes ?? [],
        threads,
      );
      const label = `${test.name} on ${isa}, ${threads} threads`;
      const present = made.filter((output) => output !== null);
      for (const output of present) expect(output.intact(), `${label}: writes stay inside`).toBe(true);
      const bytes = present.map((output) => bytesOf(output.tensor).slice());
      if (first === undefined) {
        first = bytes;
        const specifications = test.outputs.filter((output) => output !== null);
        const results = present.map((output) => valuesOf(output.tensor));
        specifications.forEach((output, i) => {
          const what = `${label}: output ${i} [${output.shape.join(", ")}] ${output.dtype}`;
          const terms = output.terms ?? output.expected;
          const error = errorOf(results[i]!, output.expected, terms);
          expect(error, `${what} against float64`).toBeLessThanOrEqual(bound(output.dtype));
          if (twin) {
            const difference = errorOf(results[i]!, twin[i]!, terms);
            expect(difference, `${what} against scalar`).toBeLessThanOrEqual(2 * bound(output.dtype));
          }
        });
        twin ??= results;
      } else {
        expect(bytes.map(String), `${label}: same bits as on 1 thread`).toEqual(first.map(String));
      }
    }
  }
}
