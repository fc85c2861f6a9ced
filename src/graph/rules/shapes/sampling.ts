import { type Dimension, formatShape } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import { maximumLogprobs, samplingParameters, samplingSeeds } from "../../ops.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import { operands, requireDType, requireEqual, requireInteger, requireRank, requireSame } from "./common.ts";

/** Fails unless the type is a matrix of `columns` for each of `rows`. */
function checkColumns(type: TensorType, rows: Dimension, columns: number, name: string, fail: Fail): void {
  requireRank(type, 2, name, fail);
  requireEqual(type.shape[0]!, rows, `the rows of the logits and ${name}`, fail);
  if (type.shape[1] !== columns) fail(`${name} must have ${columns} columns, got ${formatShape(type.shape)}`);
}

/** Fails unless `offsets` can cut ids and values, which belong together, into a list for each row. */
function checkLists(
  offsets: TensorType,
  ids: TensorType,
  values: TensorType,
  rows: Dimension,
  name: string,
  fail: Fail,
): void {
  requireRank(offsets, 1, `${name}_offsets`, fail);
  requireInteger(offsets, `${name}_offsets`, fail);
  requireRank(ids, 1, `${name}_ids`, fail);
  requireInteger(ids, `${name}_ids`, fail);
  requireSame(ids.shape, values.shape, `${name}_ids and their values`, fail);
  const [entries] = offsets.shape;
  // One more than a symbol is no dimension that a shape can say.
  if (typeof rows === "number" && typeof entries === "number" && entries !== rows + 1) {
    fail(`${name}_offsets must have ${rows + 1} entries for ${rows} rows, got ${entries}`);
  }
}

/** Shape of the sampling op. */
export const samplingShapes: { readonly sample: ShapeRule<"sample"> } = {
  sample: (inputs, _attributes, fail) => {
    const [logits, parameters, seeds, ...lists] = operands(inputs, 11, fail);
    const [historyOffsets, historyIds, historyCounts, biasOffsets, biasIds, biasValues, masks, maskRows] =
      lists;
    requireRank(logits!, 2, "logits", fail);
    requireDType(logits!, "f32", "logits", fail);
    const [rows, vocabulary] = logits!.shape as [Dimension, Dimension];
    if (typeof vocabulary !== "number" || vocabulary === 0) {
      return fail("the vocabulary must have a fixed size of at least 1");
    }
    requireDType(parameters!, "f32", "parameters", fail);
    checkColumns(parameters!, rows, samplingParameters.length, "parameters", fail);
    requireInteger(seeds!, "seeds", fail);
    checkColumns(seeds!, rows, samplingSeeds.length, "seeds", fail);
    requireInteger(historyCounts!, "history_counts", fail);
    checkLists(historyOffsets!, historyIds!, historyCounts!, rows, "history", fail);
    requireDType(biasValues!, "f32", "bias_values", fail);
    checkLists(biasOffsets!, biasIds!, biasValues!, rows, "bias", fail);
    requireRank(masks!, 2, "masks", fail);
    requireInteger(masks!, "masks", fail);
    checkColumns(masks!, masks!.shape[0]!, Math.ceil(vocabulary / 32), "masks", fail);
    requireRank(maskRows!, 1, "mask_rows", fail);
    requireInteger(maskRows!, "mask_rows", fail);
    requireEqual(maskRows!.shape[0]!, rows, "the rows of the logits and mask_rows", fail);
    return [
      { shape: [rows], dtype: "i32" },
      { shape: [rows], dtype: "f32" },
      { shape: [rows, maximumLogprobs], dtype: "i32" },
      { shape: [rows, maximumLogprobs], dtype: "f32" },
    ];
  },
};
