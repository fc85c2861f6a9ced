import { ShapeError } from "../../../base/errors.ts";
import type { AttentionAttributes, AttentionOp } from "../../ops.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { attentionBlockReferences } from "./attention_block.ts";
import { addScaled, checkOffsets, dot, normalise, sizesOf } from "./attention_common.ts";
import { checkIndex } from "./common.ts";

/** Runs `visit` for each query token with the keys [first, end) that it sees. */
function forEachQuery(
  offsets: Float64Array,
  { causal, window }: AttentionAttributes,
  visit: (query: number, first: number, end: number) => void,
): void {
  for (let sequence = 0; sequence + 1 < offsets.length; sequence++) {
    const [start, stop] = [offsets[sequence]!, offsets[sequence + 1]!];
    for (let query = start; query < stop; query++) {
      const first = window > 0 ? Math.max(start, query - window + 1) : start;
      visit(query, first, causal ? query + 1 : stop);
    }
  }
}

/** The cache slots of tokens [first, end) of a sequence whose blocks are listed in its row of the table. */
function slotsOf(
  tables: ReferenceTensor,
  sequence: number,
  first: number,
  end: number,
  block: number,
  slots: number,
): Float64Array {
  return new Float64Array(end - first).map((_, index) => {
    const position = first + index;
    const entry = sequence * tables.shape[1]! + Math.floor(position / block);
    const slot = tables.values[entry]! * block + (position % block);
    return checkIndex("paged_attention", "block_tables", slot, entry, slots);
  });
}

function roundHalfEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** A cache's values: in a cache of i8 `[slots, groups, size]`, those that its whole numbers and scales stand for. */
function cacheValues(cache: ReferenceTensor, scales: ReferenceTensor | undefined): Float64Array {
  if (scales === undefined) return cache.values;
  const size = cache.shape[2]!;
  return cache.values.map((value, index) => value * scales.values[Math.floor(index / size)]!);
}

/** Fails unless a sequence's context holds its queries and fits its block table. */
function checkContext(sequence: number, queries: number, context: number, capacity: number): void {
  if (context >= queries && context <= capacity) return;
  throw new ShapeError("bad_context", `paged_attention: context_lengths[${sequence}] does not fit`, {
    expected: `from ${queries} (the queries of the sequence) to ${capacity} (what its block table holds)`,
    received: String(context),
  });
}

/** Meaning of the attention ops. */
export const attentionReferences: {
  readonly [Op in AttentionOp]: ReferenceRule<Op>;
} = {
  attention: ([q, k, v, offsets], attributes) => {
    const { tokens, heads, size, groups, share } = sizesOf(q!, k!);
    checkOffsets("attention", "offsets", offsets!.values, tokens);
    const out = new Float64Array(q!.values.length);
    const logsumexp = new Float64Array(heads * tokens);
    forEachQuery(offsets!.values, attributes, (query, first, end) => {
      const scores = new Float64Array(end - first);
      for (let head = 0; head < heads; head++) {
        const own = (query * heads + head) * size;
        const at = (key: number): number => (key * groups + Math.floor(head / share)) * size;
        for (let key = first; key < end; key++) {
          scores[key - first] = attributes.scale * dot(q!.values, own, k!.values, at(key), size);
        }
        logsumexp[head * tokens + query] = normalise(scores);
        for (let key = first; key < end; key++) {
          addScaled(out, own, v!.values, at(key), size, scores[key - first]!);
        }
      }
    });
    return [out, logsumexp];
  },
  // With P the probabilities: dV = P^T dO; dS = P (dO V^T - rowsum(dO O)); dQ = scale dS K; dK = scale dS^T Q.
  attention_gradient: ([dOut, q, k, v, out, logsumexp, offsets], attributes) => {
    const { tokens, heads, size, groups, share } = sizesOf(q!, k!);
    checkOffsets("attention_gradient", "offsets", offsets!.values, tokens);
    const dQ = new Float64Array(q!.values.length);
    const dK = new Float64Array(k!.values.length);
    const dV = new Float64Array(v!.values.length);
    forEachQuery(offsets!.values, attributes, (query, first, end) => {
      for (let head = 0; head < heads; head++) {
        const own = (query * heads + head) * size;
        const rowSum = dot(dOut!.values, own, out!.values, own, size);
        for (let key = first; key < end; key++) {
          const at = (key * groups + Math.floor(head / share)) * size;
          const score = attributes.scale * dot(q!.values, own, k!.values, at, size);
          const probability = Math.exp(score - logsumexp!.values[head * tokens + query]!);
          const dProbability = dot(dOut!.values, own, v!.values, at, size);
          const dScore = attributes.scale * probability * (dProbability - rowSum);
          addScaled(dV, at, dOut!.values, own, size, probability);
          addScaled(dQ, own, k!.values, at, size, dScore);
          addScaled(dK, at, q!.values, own, size, dScore);
        }
      }
    });
    return [dQ, dK, dV];
  },
  ...attentionBlockReferences,
  cache_write: ([cache, values, slots]) => {
    const result = cache!.values.slice();
    const limit = cache!.shape[0]!;
    const size = limit === 0 ? 0 : result.length / limit;
    slots!.values.forEach((slot, token) => {
      if (slot === -1) return;
      const row = checkIndex("cache_write", "slots", slot, token, limit);
      result.set(values!.values.subarray(token * size, (token + 1) * size), row * size);
    });
    return [result];
  },
  // The scale of a row is its largest magnitude / 127; numbers are rounded to the nearest, halves to even ones.
  cache_write_quantized: ([cache, scales, values, slots]) => {
    const [result, newScales] = [cache!.values.slice(), scales!.values.slice()];
    const [limit, groups, size] = cache!.shape as [number, number, number];
    slots!.values.forEach((slot, token) => {
      if (slot === -1) return;
      const row = checkIndex("cache_write_quantized", "slots", slot, token, limit) * groups;
      for (let group = 0; group < groups; group++) {
        const from = (token * groups + group) * size;
        const numbers = values!.values.subarray(from, from + size);
        const largest = numbers.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        newScales[row + group] = largest / 127;
        numbers.forEach((value, i) => {
          result[(row + group) * size + i] = largest === 0 ? 0 : roundHalfEven((value * 127) / largest);
        });
      }
    });
    return [result, newScales];
  },
  cache_copy: ([cache, sources, destinations], { blockSize }) => {
    const result = cache!.values.slice();
    const blocks = Math.floor(cache!.shape[0]! / blockSize);
    const size = blocks === 0 ? 0 : (result.length / cache!.shape[0]!) * blockSize;
    destinations!.values.forEach((destination, index) => {
      if (destination === -1) return;
      const from = checkIndex("cache_copy", "sources", sources!.values[index]!, index, blocks);
      const to = checkIndex("cache_copy", "destinations", destination, index, blocks);
      result.copyWithin(to * size, from * size, (from + 1) * size);
    });
    return [result];
  },
  paged_attention: (operands, { scale, window, blockSize }) => {
    const [q, k, v, queryOffsets, contextLengths, blockTables, keyScales, valueScales] = operands;
    const keys = cacheValues(k!, keyScales);
    const values = cacheValues(v!, valueScales);
    const { tokens, heads, size, groups, share } = sizesOf(q!, k!);
    checkOffsets("paged_attention", "query_offsets", queryOffsets!.values, tokens);
    const out = new Float64Array(q!.values.length);
    contextLengths!.values.forEach((context, sequence) => {
      const [start, stop] = [queryOffsets!.values[sequence]!, queryOffsets!.values[sequence + 1]!];
      checkContext(sequence, stop - start, context, blockTables!.shape[1]! * blockSize);
      for (let query = start; query < stop; query++) {
        const end = context - (stop - query) + 1;
        const first = window > 0 ? Math.max(0, end - window) : 0;
        const scores = new Float64Array(end - first);
        const slots = slotsOf(blockTables!, sequence, first, end, blockSize, k!.shape[0]!);
        for (let head = 0; head < heads; head++) {
          const own = (query * heads + head) * size;
          const at = (index: number): number => (slots[index]! * groups + Math.floor(head / share)) * size;
          for (let i = 0; i < scores.length; i++) {
            scores[i] = scale * dot(q!.values, own, keys, at(i), size);
          }
          normalise(scores);
          for (let i = 0; i < scores.length; i++) addScaled(out, own, values, at(i), size, scores[i]!);
        }
      }
    });
    return [out];
  },
};
