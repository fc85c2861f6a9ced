import { type DType, decode, dtypeCode, encode, type TensorData, viewOf } from "../../src/base/dtype.ts";
import { elementCount } from "../../src/base/shape.ts";
import type { CollectiveOp, OpAttributes } from "../../src/graph/ops.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { type CollectiveRule, collectiveRules } from "../../src/graph/rules/references/collectives.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { loadAddon, type NativeGroupHandle } from "../../src/runtime/native/addon.ts";
import {
  asCommunicationError,
  type CollectiveKind,
  collectiveKinds,
} from "../../src/runtime/native/group.ts";

/**
 * What every process group is held to, as one rank sees it: all ranks' operands come from seeds, so each rank knows
 * what the others hand in, and what `collectiveRules` and a sum in float32 make of it. Runs under `local` and `mpi`.
 */

/** Uniform in [-1, 1), from a 32-bit state (Marsaglia's xorshift). */
export function uniform(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  };
}

/** The numbers that a rank hands in: of many magnitudes, so that the order of a sum shows. */
export function operand(dtype: DType, elements: number, seed: number): TensorData {
  const next = uniform(seed);
  const fractions = dtype === "f32" || dtype === "f64" || dtype === "bf16" || dtype === "f16";
  const values = new Float64Array(elements);
  for (let index = 0; index < elements; index++) {
    const value = next();
    values[index] = fractions ? value * 2 ** ((index % 13) - 6) : Math.round(value * 100);
    if (dtype === "u8") values[index] = Math.abs(values[index]!);
  }
  return encode(dtype, values);
}

/** The sum in the order of ranks: float32 but for f64 and i32, rounded to the dtype at the end. */
export function orderedSum(dtype: DType, terms: readonly TensorData[]): TensorData {
  const sums = decode(dtype, terms[0]!);
  for (const term of terms.slice(1)) {
    const values = decode(dtype, term);
    for (let index = 0; index < sums.length; index++) {
      const sum = sums[index]! + values[index]!;
      sums[index] = dtype === "f64" ? sum : dtype === "i32" ? sum | 0 : Math.fround(sum);
    }
  }
  return encode(dtype, sums);
}

/** One tensor of a bucket. */
interface Operand {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A call of a native group with shapes and dimensions, as compiled programs make it. */
export async function callNative(
  group: ProcessGroup,
  kind: CollectiveKind,
  operands: readonly Operand[],
  inputs: readonly TensorData[],
  outputs: readonly TensorData[],
  { dimension = 0, otherDimension = 0, peer = 0, label = "" } = {},
): Promise<void> {
  const tensors = (data: readonly TensorData[]) =>
    data.map((each, index) => {
      const { dtype, shape } = operands[index]!;
      const same = each.length === elementCount(shape);
      return { data: each, dtype: dtypeCode(dtype), shape: same ? shape : [each.length] };
    });
  try {
    await loadAddon().runCollective(
      group.native as NativeGroupHandle,
      collectiveKinds.indexOf(kind),
      tensors(inputs),
      tensors(outputs),
      dimension,
      otherDimension,
      peer,
      [],
      [],
      label,
    );
  } catch (error) {
    throw asCommunicationError(error);
  }
}

/** Every case that this rank found wrong, in words; `seed` varies the numbers. */
export async function checkCollectives(group: ProcessGroup, seed: number): Promise<string[]> {
  const wrong: string[] = [];
  for (const operands of buckets(group.size)) {
    for (const [op, attributes] of calls(group, operands)) {
      const problem = await checkCall(group, op, attributes, operands, seed);
      if (problem !== undefined) wrong.push(`rank ${group.rank} of ${group.size}: ${problem}`);
    }
  }
  return wrong;
}

/** Awkward shapes, all dtypes, and buckets of several tensors; every dimension divides by the ranks. */
function buckets(size: number): Operand[][] {
  const floats: DType[] = ["f32", "bf16", "f16", "f64", "i32"];
  const single = floats.map((dtype): Operand[] => [{ dtype, shape: [size * 3, size, size] }]);
  return [
    ...single,
    [{ dtype: "u8", shape: [size * 3, size] }],
    [{ dtype: "f32", shape: [0] }],
    [{ dtype: "f32", shape: [size * 2, 0, size] }],
    [{ dtype: "f32", shape: [size] }],
    [
      { dtype: "f32", shape: [size * 257] },
      { dtype: "bf16", shape: [size * 64, size] },
      { dtype: "f64", shape: [size, size, size] },
      { dtype: "f32", shape: [size * 1000] },
    ],
  ];
}

type Call = { [Op in CollectiveOp]: [Op, OpAttributes[Op]] }[CollectiveOp];

/** Every collective in every dimension that the bucket's shapes have. */
function calls(group: ProcessGroup, operands: readonly Operand[]): Call[] {
  const own = { axes: group.name, size: group.size, rank: group.rank };
  const rank = Math.min(...operands.map(({ shape }) => shape.length));
  const dimensions = Array.from({ length: rank }, (_, index) => index);
  const sums = operands.every(({ dtype }) => dtype !== "u8");
  return [
    ...(sums ? [["all_reduce", { group: own }] satisfies Call] : []),
    ...dimensions.flatMap((dimension): Call[] => [
      ...(sums ? [["reduce_scatter", { group: own, dimension }] satisfies Call] : []),
      ["all_gather", { group: own, dimension }],
      ...dimensions.map(
        (other): Call => ["all_to_all", { group: own, split: dimension, concatenate: other }],
      ),
    ]),
    ["permute", { group: own, offset: 1 }],
    ["permute", { group: own, offset: -1 }],
    ["permute", { group: own, offset: 0 }],
  ];
}

async function checkCall(
  group: ProcessGroup,
  op: CollectiveOp,
  attributes: OpAttributes[CollectiveOp],
  operands: readonly Operand[],
  seed: number,
): Promise<string | undefined> {
  const data = group.members.map((_, rank) =>
    operands.map(({ dtype, shape }, index) =>
      operand(dtype, elementCount(shape), seed * 7919 + rank * 101 + index),
    ),
  );
  const references = data.map((bucket) =>
    bucket.map((each, index): ReferenceTensor => {
      const { dtype, shape } = operands[index]!;
      return { shape, values: decode(dtype, each) };
    }),
  );
  const rule = collectiveRules[op] as CollectiveRule<CollectiveOp>;
  const expected = rule(references, attributes);
  const inputs = data[group.rank]!;
  const outputs = expected.map(({ values }, index) => {
    const { dtype } = operands[index]!;
    return viewOf(dtype, encode(dtype, new Float64Array(values.length)).buffer);
  });
  const { dimension, split, concatenate, offset } = attributes as Partial<
    Record<"dimension" | "split" | "concatenate" | "offset", number>
  >;
  await callNative(group, op, operands, inputs, outputs, {
    dimension: dimension ?? split ?? 0,
    otherDimension: concatenate ?? 0,
    peer: offset ?? 0,
  });
  for (const [index, { dtype, shape }] of operands.entries()) {
    const found = outputs[index]!;
    const text = `${op} ${JSON.stringify(attributes)} of ${dtype}[${shape}]`;
    const sums = op === "all_reduce" || op === "reduce_scatter";
    const exact = sums
      ? orderedPart(op, attributes, dtype, shape, data, index)
      : encode(dtype, expected[index]!.values);
    const bad = firstDifference(found, exact);
    if (bad >= 0) return `${text}: element ${bad} is ${found[bad]}, not ${exact[bad]}`;
    // The oracle sums in float64: no order of float32 sums is far from it.
    const close = decode(dtype, found).every((value, place) => {
      const bar = { f32: 1e-5, bf16: 1e-2, f16: 2e-3 }[dtype as string] ?? 0;
      return Math.abs(value - expected[index]!.values[place]!) <= bar * 64 * group.size;
    });
    if (!close) return `${text}: far from the sum in float64`;
  }
  return undefined;
}

function orderedPart(
  op: CollectiveOp,
  attributes: OpAttributes[CollectiveOp],
  dtype: DType,
  shape: readonly number[],
  data: readonly (readonly TensorData[])[],
  index: number,
): TensorData {
  const sum = orderedSum(
    dtype,
    data.map((bucket) => bucket[index]!),
  );
  if (op === "all_reduce") return sum;
  // The rule of one term only cuts.
  const zero = { shape, values: new Float64Array(sum.length) };
  const ranks = data.map((_, rank) => [rank === 0 ? { shape, values: decode(dtype, sum) } : zero]);
  const rule = collectiveRules.reduce_scatter;
  return encode(dtype, rule(ranks, attributes as OpAttributes["reduce_scatter"])[0]!.values);
}

/** The first element whose bits differ, or -1. */
export function firstDifference(a: TensorData, b: TensorData): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  for (let index = 0; index < a.length; index++) if (!Object.is(a[index], b[index])) return index;
  return -1;
}
