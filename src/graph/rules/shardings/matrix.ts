import type { OpAttributes } from "../../ops.ts";
import type { Label, ShardingRule } from "../sharding.ts";
import { leadingLabels, whole } from "./common.ts";

type MatrixOp =
  | "matmul"
  | "pack_matrix"
  | "matmul_packed"
  | "linear_cross_entropy"
  | "linear_cross_entropy_gradient";

/** How matrix products may be cut. */
export const matrixShardings: { readonly [Op in MatrixOp]: ShardingRule<Op> } = {
  matmul: ([a, b, ...extra], _outputs, attributes) => {
    const { transposeA, transposeB, bias, residual } = attributes;
    const batch = a!.shape.slice(0, -2).map((_, axis) => `d${axis}`);
    // A bias, a residual or an activation belongs to the whole sum, not to each of its terms.
    const inner: Label = isPlain(attributes) ? "inner" : null;
    const left = transposeA ? [inner, "rows"] : ["rows", inner];
    const right = transposeB ? ["columns", inner] : [inner, "columns"];
    const result: Label[] = [...batch, "rows", "columns"];
    const epilogue = [...(bias ? [["columns"]] : []), ...(residual ? [result] : [])];
    const together = extra.map((_, index) => index + 2);
    return {
      inputs: [[...batch, ...left], [...(b!.shape.length > 2 ? batch : []), ...right], ...epilogue],
      outputs: [result],
      linear:
        attributes.activation === "none"
          ? [
              [0, ...together],
              [1, ...together],
            ]
          : [],
    };
  },
  pack_matrix: whole,
  matmul_packed: ([a, , ...extra], _outputs, { bias, activation }) => {
    const rows = leadingLabels(a);
    const epilogue = extra.map((_, index) => (bias && index === 0 ? [null] : rows));
    const together = extra.map((_, index) => index + 2);
    return {
      inputs: [rows, [null], ...epilogue],
      outputs: [rows],
      linear: activation === "none" ? [[0, ...together]] : [],
    };
  },
  linear_cross_entropy: () => ({
    inputs: [["tokens", null], [null, null], ["tokens"]],
    outputs: [["tokens"]],
    linear: [],
  }),
  linear_cross_entropy_gradient: () => ({
    inputs: [["tokens"], ["tokens", null], [null, null], ["tokens"]],
    outputs: [["tokens"], ["tokens", null], [null, null]],
    linear: [],
  }),
};

function isPlain({ activation, bias, residual }: OpAttributes["matmul"]): boolean {
  return activation === "none" && !bias && !residual;
}
