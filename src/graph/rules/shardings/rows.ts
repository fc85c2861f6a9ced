import type { ShardingRule } from "../sharding.ts";
import { labelsOf, leadingLabels } from "./common.ts";

type RowOp =
  | "rms_norm"
  | "rms_norm_gradient"
  | "layer_norm"
  | "layer_norm_gradient"
  | "rope"
  | "swiglu"
  | "swiglu_gradient"
  | "softmax"
  | "softmax_gradient"
  | "cross_entropy"
  | "cross_entropy_gradient"
  | "embedding"
  | "embedding_gradient";

/** How ops on rows may be cut: by rows; what is normalised over stays whole. */
export const rowShardings: { readonly [Op in RowOp]: ShardingRule<Op> } = {
  rms_norm: ([x]) => {
    const rows = leadingLabels(x);
    return { inputs: [rows, [null]], outputs: [rows, rows.slice(0, -1)], linear: [] };
  },
  rms_norm_gradient: ([, x]) => {
    const rows = leadingLabels(x);
    return {
      inputs: [rows, rows, [null], rows.slice(0, -1)],
      outputs: [rows, [null]],
      linear: [[0]],
    };
  },
  layer_norm: ([x], _outputs, { bias }) => {
    const rows = leadingLabels(x);
    const statistic = rows.slice(0, -1);
    return {
      inputs: [rows, [null], ...(bias ? [[null]] : [])],
      outputs: [rows, statistic, statistic],
      linear: [],
    };
  },
  layer_norm_gradient: ([, x]) => {
    const rows = leadingLabels(x);
    const statistic = rows.slice(0, -1);
    return {
      inputs: [rows, rows, [null], statistic, statistic],
      outputs: [rows, [null], [null]],
      linear: [[0]],
    };
  },
  rope: () => ({
    inputs: [["tokens", "heads", null], ["tokens"], [null]],
    outputs: [["tokens", "heads", null]],
    linear: [[0]],
  }),
  swiglu: ([gate]) => {
    const labels = labelsOf(gate);
    return { inputs: [labels, labels], outputs: [labels], linear: [[1]] };
  },
  swiglu_gradient: ([, gate]) => {
    const labels = labelsOf(gate);
    return { inputs: [labels, labels, labels], outputs: [labels, labels], linear: [[0]] };
  },
  softmax: ([x]) => ({ inputs: [leadingLabels(x)], outputs: [leadingLabels(x)], linear: [] }),
  softmax_gradient: ([, y]) => {
    const rows = leadingLabels(y);
    return { inputs: [rows, rows], outputs: [rows], linear: [[0]] };
  },
  cross_entropy: () => ({
    inputs: [["tokens", null], ["tokens"]],
    outputs: [["tokens"], ["tokens"]],
    linear: [],
  }),
  cross_entropy_gradient: () => ({
    inputs: [["tokens"], ["tokens", null], ["tokens"], ["tokens"]],
    outputs: [["tokens", null]],
    linear: [[0]],
  }),
  // Rows are looked up by their number in the whole table: the table stays whole, or is cut in columns.
  embedding: ([, ids]) => {
    const rows = labelsOf(ids);
    return { inputs: [[null, "size"], rows], outputs: [[...rows, "size"]], linear: [[0]] };
  },
  embedding_gradient: ([, ids]) => {
    const rows = labelsOf(ids);
    return { inputs: [[...rows, "size"], rows], outputs: [[null, "size"]], linear: [[0]] };
  },
};
