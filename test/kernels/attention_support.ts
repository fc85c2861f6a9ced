/** What the attention tests share: operands of a case, and runs of the two kernels. */
import type { DType } from "../../src/base/dtype.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import type { AttentionCase } from "./attention_reference.ts";
import { randomTensor, runKernel, type TestTensor, tensorOf, zeros } from "./support.ts";

/** The tensors that a case attends over; `dOut` is the gradient that arrives. */
export interface Operands {
  readonly q: TestTensor;
  readonly k: TestTensor;
  readonly v: TestTensor;
  readonly dOut: TestTensor;
  readonly offsets: TestTensor;
}

/** A case with the usual scale, causal, two heads of 16, but for what is given. */
export function attentionCase(
  given: Partial<AttentionCase> & { readonly offsets: readonly number[] },
): AttentionCase {
  const size = given.size ?? 16;
  return { heads: 2, groups: 2, size, scale: 1 / Math.sqrt(size), causal: true, window: 0, ...given };
}

/** Seeded normal operands; queries and keys times `spread`. */
export function operandsOf(options: AttentionCase, dtype: DType, seed = 1, spread = 1): Operands {
  const { heads, groups, size, offsets } = options;
  const tokens = offsets.at(-1)!;
  return {
    q: randomTensor(dtype, [tokens, heads, size], seed, spread),
    k: randomTensor(dtype, [tokens, groups, size], seed + 1, spread),
    v: randomTensor(dtype, [tokens, groups, size], seed + 2),
    dOut: randomTensor(dtype, [tokens, heads, size], seed + 3),
    offsets: tensorOf("i32", [offsets.length], offsets),
  };
}

function attributesOf(options: AttentionCase): number[] {
  return [options.scale, Number(options.causal), options.window];
}

/** Runs `attention`. */
export function runForward(
  options: AttentionCase,
  { q, k, v, offsets }: Operands,
  isa: IsaName,
  threads = 2,
): { out: TestTensor; logsumexp: TestTensor; ran: IsaName } {
  const out = zeros(q.dtype, q.shape);
  const logsumexp = zeros("f32", [options.heads, q.shape[0]!]);
  const attributes = attributesOf(options);
  const ran = runKernel("attention", isa, [q, k, v, offsets], [out, logsumexp], attributes, threads);
  return { out, logsumexp, ran };
}

/** Runs `attention` and then `attention_gradient`. */
export function runBackward(
  options: AttentionCase,
  given: Operands,
  isa: IsaName,
  threads = 2,
): { dQ: TestTensor; dK: TestTensor; dV: TestTensor; ran: IsaName } {
  const { q, k, v, dOut, offsets } = given;
  const { out, logsumexp } = runForward(options, given, isa, threads);
  const dQ = zeros(q.dtype, q.shape);
  const dK = zeros(k.dtype, k.shape);
  const dV = zeros(v.dtype, v.shape);
  const ran = runKernel(
    "attention_gradient",
    isa,
    [dOut, q, k, v, out, logsumexp, offsets],
    [dQ, dK, dV],
    attributesOf(options),
    threads,
  );
  return { dQ, dK, dV, ran };
}
