import { isFloat } from "../../../base/dtype.ts";
import type { Shape } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { AttentionBlockAttributes, AttentionOp } from "../../ops.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import {
  operands,
  requireDType,
  requireEqual,
  requireFloat,
  requireInteger,
  requireRank,
  requireSame,
  requireStatistic,
} from "./common.ts";

function checkHeads(q: TensorType, k: TensorType, v: TensorType, fail: Fail): void {
  requireRank(q, 3, "q", fail);
  requireFloat(q, "q", fail);
  requireRank(k, 3, "k", fail);
  requireRank(v, 3, "v", fail);
  requireSame(k.shape, v.shape, "k and v", fail);
  requireEqual(q.shape[2]!, k.shape[2]!, "the head sizes of q and k", fail);
  const [heads, groups] = [q.shape[1], k.shape[1]];
  if (typeof heads !== "number" || typeof groups !== "number") fail("the numbers of heads must be fixed");
  else if (heads % groups !== 0) fail(`${heads} query heads do not divide among ${groups} key/value heads`);
}

function checkVector(type: TensorType, name: string, fail: Fail): void {
  requireRank(type, 1, name, fail);
  requireInteger(type, name, fail);
}

function checkBlockSize(blockSize: number, fail: Fail): void {
  if (Number.isInteger(blockSize) && blockSize >= 1) return;
  fail(`the block size must be a positive integer, got ${blockSize}`);
}

/** Checks the rows that are written into a cache. */
function checkWritten(cache: TensorType, values: TensorType, slots: TensorType, fail: Fail): void {
  requireFloat(values, "values", fail);
  if (cache.shape.length === 0 || values.shape.length === 0) fail("cache and values must have rows");
  const what = "a slot of the cache and a token's values";
  requireSame(cache.shape.slice(1), values.shape.slice(1), what, fail);
  checkVector(slots, "slots", fail);
  requireEqual(values.shape[0]!, slots.shape[0]!, "the tokens of values and slots", fail);
}

/** Checks that a cache holds numbers as they are, or i8 with a scale for each token and head. */
function checkCache(cache: TensorType, scales: TensorType | undefined, name: string, fail: Fail): void {
  if (scales === undefined) {
    if (cache.dtype === "i8") fail(`${name} is i8: it needs ${name}_scales`);
    requireFloat(cache, name, fail);
  } else {
    requireDType(cache, "i8", name, fail);
    requireStatistic(scales, cache.shape.slice(0, 2), `${name}_scales`, fail);
  }
}

/** Checks the operands that the op and its gradient share. */
function checkPacked(q: TensorType, k: TensorType, v: TensorType, offsets: TensorType, fail: Fail): void {
  checkHeads(q, k, v, fail);
  requireFloat(k, "k", fail);
  requireFloat(v, "v", fail);
  requireEqual(q.shape[0]!, k.shape[0]!, "the tokens of q and k", fail);
  checkVector(offsets, "offsets", fail);
}

/** Checks what a block and its gradient share: operands of one dtype, a place for each token, and the offsets. */
function checkBlock(
  [q, k, v, queryPlaces, keyPlaces, offsets]: readonly TensorType[],
  { fraction }: AttentionBlockAttributes,
  fail: Fail,
): void {
  checkHeads(q!, k!, v!, fail);
  requireDType(k!, q!.dtype, "k", fail);
  requireDType(v!, q!.dtype, "v", fail);
  checkVector(queryPlaces!, "the places of the queries", fail);
  checkVector(keyPlaces!, "the places of the keys", fail);
  checkVector(offsets!, "offsets", fail);
  requireEqual(q!.shape[0]!, queryPlaces!.shape[0]!, "the numbers of queries and of their places", fail);
  requireEqual(k!.shape[0]!, keyPlaces!.shape[0]!, "the numbers of keys and of their places", fail);
  if (!(fraction >= 0 && fraction <= 1))
    fail(`the fraction of visible pairs must be in [0, 1], got ${fraction}`);
}

/** What is to be added to: f32 of the same shape. */
function checkSum(sum: TensorType, shape: Shape, name: string, fail: Fail): void {
  requireDType(sum, "f32", name, fail);
  requireSame(sum.shape, shape, `${name} and the sum so far`, fail);
}

/** Shapes of the attention ops. */
export const attentionShapes: {
  readonly [Op in AttentionOp]: ShapeRule<Op>;
} = {
  attention: (inputs, _attributes, fail) => {
    const [q, k, v, offsets] = operands(inputs, 4, fail);
    checkPacked(q!, k!, v!, offsets!, fail);
    return [q!, { shape: [q!.shape[1]!, q!.shape[0]!], dtype: "f32" }];
  },
  attention_gradient: (inputs, _attributes, fail) => {
    const [dOut, q, k, v, out, logsumexp, offsets] = operands(inputs, 7, fail);
    checkPacked(q!, k!, v!, offsets!, fail);
    requireFloat(dOut!, "the gradient of the result", fail);
    requireFloat(out!, "the result", fail);
    requireSame(dOut!.shape, q!.shape, "q and the gradient of the result", fail);
    requireSame(out!.shape, q!.shape, "q and the result", fail);
    requireStatistic(logsumexp!, [q!.shape[1]!, q!.shape[0]!], "logsumexp", fail);
    return [q!, k!, v!];
  },
  attention_block: (inputs, attributes, fail) => {
    const all = operands(inputs, 6, fail, 8);
    const [q, , , , , , out, logsumexp] = all;
    checkBlock(all, attributes, fail);
    const statistics = [q!.shape[1]!, q!.shape[0]!];
    if (inputs.length === 7) fail("the result so far needs its logsumexp beside it");
    if (out !== undefined) checkSum(out, q!.shape, "q", fail);
    if (logsumexp !== undefined) requireStatistic(logsumexp, statistics, "logsumexp", fail);
    if (!isFloat(attributes.dtype)) fail(`the result must be of a float dtype, got ${attributes.dtype}`);
    return [
      { shape: q!.shape, dtype: attributes.dtype },
      { shape: statistics, dtype: "f32" },
    ];
  },
  attention_block_gradient: (inputs, attributes, fail) => {
    const sums = attributes.sums === "none" ? 0 : attributes.sums === "queries" ? 1 : 2;
    const [dOut, q, k, v, logsumexp, delta, queryPlaces, keyPlaces, offsets, ...before] = operands(
      inputs,
      9 + sums,
      fail,
    );
    checkBlock([q!, k!, v!, queryPlaces!, keyPlaces!, offsets!], attributes, fail);
    requireDType(dOut!, q!.dtype, "the gradient of the result", fail);
    requireSame(dOut!.shape, q!.shape, "q and the gradient of the result", fail);
    requireStatistic(logsumexp!, [q!.shape[1]!, q!.shape[0]!], "logsumexp", fail);
    requireStatistic(delta!, [q!.shape[1]!, q!.shape[0]!], "delta", fail);
    for (const sum of before) checkSum(sum, attributes.sums === "queries" ? q!.shape : k!.shape, "it", fail);
    return [q!, k!, v!].map(({ shape }) => ({ shape, dtype: "f32" }));
  },
  attention_delta: (inputs, _attributes, fail) => {
    const [dOut, out] = operands(inputs, 2, fail);
    requireRank(out!, 3, "the result", fail);
    requireFloat(out!, "the result", fail);
    requireFloat(dOut!, "the gradient of the result", fail);
    requireSame(dOut!.shape, out!.shape, "the result and its gradient", fail);
    return [{ shape: [out!.shape[1]!, out!.shape[0]!], dtype: "f32" }];
  },
  cache_write: (inputs, _attributes, fail) => {
    const [cache, values, slots] = operands(inputs, 3, fail);
    requireFloat(cache!, "cache", fail);
    checkWritten(cache!, values!, slots!, fail);
    return [cache!];
  },
  cache_write_quantized: (inputs, _attributes, fail) => {
    const [cache, scales, values, slots] = operands(inputs, 4, fail);
    requireRank(cache!, 3, "cache", fail);
    requireDType(cache!, "i8", "cache", fail);
    requireStatistic(scales!, cache!.shape.slice(0, 2), "scales", fail);
    checkWritten(cache!, values!, slots!, fail);
    return [cache!, scales!];
  },
  cache_copy: (inputs, { blockSize }, fail) => {
    const [cache, sources, destinations] = operands(inputs, 3, fail);
    if (cache!.shape.length === 0) fail("cache must have rows");
    checkVector(sources!, "sources", fail);
    checkVector(destinations!, "destinations", fail);
    requireEqual(
      sources!.shape[0]!,
      destinations!.shape[0]!,
      "the numbers of sources and destinations",
      fail,
    );
    checkBlockSize(blockSize, fail);
    return [cache!];
  },
  paged_attention: (inputs, { blockSize }, fail) => {
    const all = operands(inputs, 6, fail, 8);
    const [q, k, v, queryOffsets, contextLengths, blockTables, keyScales, valueScales] = all;
    if (inputs.length === 7) fail("scales of the keys need scales of the values beside them");
    checkHeads(q!, k!, v!, fail);
    checkCache(k!, keyScales, "k", fail);
    checkCache(v!, valueScales, "v", fail);
    checkVector(queryOffsets!, "query_offsets", fail);
    checkVector(contextLengths!, "context_lengths", fail);
    requireInteger(blockTables!, "block_tables", fail);
    requireRank(blockTables!, 2, "block_tables", fail);
    const sequences = contextLengths!.shape[0]!;
    requireEqual(
      sequences,
      blockTables!.shape[0]!,
      "the sequences of context_lengths and block_tables",
      fail,
    );
    const entries = queryOffsets!.shape[0]!;
    // One more than a symbol is no dimension that a shape can say.
    if (typeof sequences === "number" && typeof entries === "number" && entries !== sequences + 1) {
      fail(`query_offsets must have ${sequences + 1} entries for ${sequences} sequences, got ${entries}`);
    }
    checkBlockSize(blockSize, fail);
    return [q!];
  },
};
