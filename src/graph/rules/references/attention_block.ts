import { type AttentionAttributes, type AttentionOp, nothingSeen } from "../../ops.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { addScaled, checkOffsets, dot, normalise, sizesOf } from "./attention_common.ts";
import { checkIndex } from "./common.ts";

/** The keys of a block that a query sees. */
function visibleKeys(
  place: number,
  keyPlaces: Float64Array,
  offsets: Float64Array,
  { causal, window }: AttentionAttributes,
): number[] {
  if (place === -1) return [];
  const end = offsets.findIndex((offset) => offset > place);
  const low = window > 0 ? Math.max(offsets[end - 1]!, place - window + 1) : offsets[end - 1]!;
  const high = causal ? place : offsets[end]! - 1;
  return [...keyPlaces.keys()].filter((key) => keyPlaces[key]! >= low && keyPlaces[key]! <= high);
}

function checkPlaces(op: string, name: string, places: ReferenceTensor, tokens: number): void {
  places.values.forEach((place, index) => {
    if (place !== -1) checkIndex(op, name, place, index, tokens);
  });
}

/** Runs `visit` for each query and head with the keys that it sees. */
function forEachHead(
  op: string,
  heads: number,
  [queryPlaces, keyPlaces, offsets]: readonly ReferenceTensor[],
  attributes: AttentionAttributes,
  visit: (query: number, head: number, keys: readonly number[]) => void,
): void {
  const tokens = offsets!.values.at(-1)!;
  checkOffsets(op, "offsets", offsets!.values, tokens);
  checkPlaces(op, "places of queries", queryPlaces!, tokens);
  checkPlaces(op, "places of keys", keyPlaces!, tokens);
  queryPlaces!.values.forEach((place, query) => {
    const keys = visibleKeys(place, keyPlaces!.values, offsets!.values, attributes);
    for (let head = 0; head < heads; head++) visit(query, head, keys);
  });
}

type BlockOp = Extract<AttentionOp, "attention_block" | "attention_block_gradient" | "attention_delta">;

/** Meaning of attention to blocks of keys. */
export const attentionBlockReferences: { readonly [Op in BlockOp]: ReferenceRule<Op> } = {
  // Two results over parts of the keys combine by the weights e^logsumexp of their sums.
  attention_block: ([q, k, v, queryPlaces, keyPlaces, offsets, outBefore, lseBefore], attributes) => {
    const { tokens, heads, size, groups, share } = sizesOf(q!, k!);
    const out = outBefore?.values.slice() ?? new Float64Array(q!.values.length);
    const logsumexp = lseBefore?.values.slice() ?? new Float64Array(heads * tokens).fill(nothingSeen);
    const places = [queryPlaces!, keyPlaces!, offsets!];
    forEachHead("attention_block", heads, places, attributes, (query, head, keys) => {
      if (keys.length === 0) return;
      const own = (query * heads + head) * size;
      const at = (key: number): number => (key * groups + Math.floor(head / share)) * size;
      const weights = Float64Array.from(keys, (key) => {
        return attributes.scale * dot(q!.values, own, k!.values, at(key), size);
      });
      const here = normalise(weights);
      const before = logsumexp[head * tokens + query]!;
      const top = Math.max(here, before);
      const total = top + Math.log(Math.exp(here - top) + Math.exp(before - top));
      for (let d = 0; d < size; d++) out[own + d]! *= Math.exp(before - total);
      keys.forEach((key, index) => {
        addScaled(out, own, v!.values, at(key), size, weights[index]! * Math.exp(here - total));
      });
      logsumexp[head * tokens + query] = total;
    });
    return [out, logsumexp];
  },
  // As for `attention_gradient`, over the keys of the block alone; delta is rowsum(dO O).
  attention_block_gradient: (operands, attributes) => {
    const [dOut, q, k, v, logsumexp, delta, queryPlaces, keyPlaces, offsets, ...before] = operands;
    const { tokens, heads, size, groups, share } = sizesOf(q!, k!);
    const start = (sums: "queries" | "keys", index: number, like: ReferenceTensor): Float64Array => {
      return attributes.sums === sums ? before[index]!.values.slice() : new Float64Array(like.values.length);
    };
    const dQ = start("queries", 0, q!);
    const dK = start("keys", 0, k!);
    const dV = start("keys", 1, v!);
    const places = [queryPlaces!, keyPlaces!, offsets!];
    forEachHead("attention_block_gradient", heads, places, attributes, (query, head, keys) => {
      const own = (query * heads + head) * size;
      const statistic = head * tokens + query;
      for (const key of keys) {
        const at = (key * groups + Math.floor(head / share)) * size;
        const score = attributes.scale * dot(q!.values, own, k!.values, at, size);
        const probability = Math.exp(score - logsumexp!.values[statistic]!);
        const dProbability = dot(dOut!.values, own, v!.values, at, size);
        const dScore = attributes.scale * probability * (dProbability - delta!.values[statistic]!);
        addScaled(dV, at, dOut!.values, own, size, probability);
        addScaled(dQ, own, k!.values, at, size, dScore);
        addScaled(dK, at, q!.values, own, size, dScore);
      }
    });
    return [dQ, dK, dV];
  },
  attention_delta: ([dOut, out]) => {
    const [tokens, heads, size] = out!.shape as [number, number, number];
    const delta = new Float64Array(heads * tokens);
    delta.forEach((_, index) => {
      const own = ((index % tokens) * heads + Math.floor(index / tokens)) * size;
      delta[index] = dot(dOut!.values, own, out!.values, own, size);
    });
    return [delta];
  },
};
