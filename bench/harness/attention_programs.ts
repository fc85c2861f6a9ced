/** Attention as programs of the native backend: the fused op, and what it replaces. */

import { leaf } from "../../src/graph/build.ts";
import { gradients } from "../../src/graph/gradient.ts";
import { apply, buildGraph, type Graph } from "../../src/graph/graph.ts";
import { attention } from "../../src/tensor/functions.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import type { FloatDType } from "./tensors.ts";

/** The sizes of attention over one sequence. */
export interface AttentionShape {
  readonly dtype: FloatDType;
  readonly tokens: number;
  readonly heads: number;
  readonly size: number;
}

/**
 * The fused op and its gradients: leaves q, k, v, d_out `[tokens, heads, size]` and offsets i32 `[2]`; outputs
 * out, d_q, d_k, d_v.
 */
export function fusedGraph({ dtype, tokens, heads, size }: AttentionShape): Graph {
  const input = (name: string) => new Tensor(leaf(name, "input", [tokens, heads, size], dtype));
  const [q, k, v, dOut] = [input("q"), input("k"), input("v"), input("d_out")];
  const offsets = new Tensor(leaf("offsets", "input", [2], "i32"));
  const options = { scale: 1 / Math.sqrt(size), causal: true, window: 0 };
  const out = attention(q, k, v, offsets, options);
  // The gradient of this sum with respect to out is d_out.
  const loss = out.multiply(dOut).sum();
  const [dQ, dK, dV] = gradients(
    loss.value,
    [q, k, v].map((operand) => operand.value),
  );
  return buildGraph("fused", [
    { name: "out", value: out.value },
    { name: "d_q", value: dQ! },
    { name: "d_k", value: dK! },
    { name: "d_v", value: dV! },
  ]);
}

/**
 * Matmul, softmax, matmul: leaves q, k, v `[heads, tokens, size]` and mask `[tokens, tokens]` (0, and minus
 * infinity where a query may not look); outputs probabilities `[heads, tokens, tokens]` and out. Heads come
 * first, which spares the unfused way the transposes of a model.
 */
export function unfusedForwardGraph({ dtype, tokens, heads, size }: AttentionShape): Graph {
  const input = (name: string, shape: number[]) => new Tensor(leaf(name, "input", shape, dtype));
  const [q, k, v] = ["q", "k", "v"].map((name) => input(name, [heads, tokens, size]));
  const mask = input("mask", [tokens, tokens]);
  const scores = q!.matmul(k!, { transposeOther: true });
  const probabilities = scores
    .multiply(1 / Math.sqrt(size))
    .add(mask)
    .softmax();
  return buildGraph("unfused", [
    { name: "probabilities", value: probabilities.value },
    { name: "out", value: probabilities.matmul(v!).value },
  ]);
}

/** The backward pass of `unfusedForwardGraph` from its probabilities: outputs d_q, d_k, d_v. */
export function unfusedBackwardGraph({ dtype, tokens, heads, size }: AttentionShape): Graph {
  const input = (name: string, shape: number[]) => new Tensor(leaf(name, "input", shape, dtype));
  const [q, k, v, dOut] = ["q", "k", "v", "d_out"].map((name) => input(name, [heads, tokens, size]));
  const probabilities = input("probabilities", [heads, tokens, tokens]);
  const dProbabilities = dOut!.matmul(v!, { transposeOther: true });
  const dScores = new Tensor(
    apply("softmax_gradient", [dProbabilities.value, probabilities.value], {}),
  ).multiply(1 / Math.sqrt(size));
  return buildGraph("unfused gradient", [
    { name: "d_q", value: dScores.matmul(k!).value },
    { name: "d_k", value: dScores.matmul(q!, { transposeThis: true }).value },
    { name: "d_v", value: probabilities.matmul(dOut!, { transposeThis: true }).value },
  ]);
}
