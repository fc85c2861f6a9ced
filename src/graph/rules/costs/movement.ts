import type { OpName } from "../../ops.ts";
import type { ConcreteType, Cost, CostRule } from "../cost.ts";
import { elements, moving, perInputElement, totalBytes } from "./common.ts";

type MovementOp = Extract<
  OpName,
  | "leaf"
  | "constant"
  | "fill"
  | "iota"
  | "random"
  | "elementwise"
  | "cast"
  | "map"
  | "reshape"
  | "broadcast"
  | "transpose"
  | "slice"
  | "pad_into"
  | "concatenate"
  | "gather"
  | "scatter_add"
  | "reduce"
  | "argmax"
>;

const free = (): Cost => ({ flops: 0, bytes: 0 });

/** Reads or writes as many bytes as it moves, whatever the size of what it indexes. */
function movedTwice(moved: ConcreteType, others: readonly ConcreteType[] = []): Cost {
  return { flops: 0, bytes: 2 * totalBytes(moved) + totalBytes(...others) };
}

/** Costs of the sources, the elementwise ops, and the ops that move or reduce elements. */
export const movementCosts: { readonly [Op in MovementOp]: CostRule<Op> } = {
  leaf: free,
  constant: free,
  reshape: free,
  fill: (inputs, outputs) => moving(inputs, outputs, 0),
  iota: (inputs, outputs) => moving(inputs, outputs, 0),
  // Ten rounds of eight operations give four words.
  random: (inputs, outputs, { distribution }) =>
    moving(inputs, outputs, elements(outputs[0]) * (distribution === "uniform" ? 20 : 44)),
  elementwise: (inputs, outputs) => moving(inputs, outputs, elements(outputs[0])),
  cast: (inputs, outputs) => moving(inputs, outputs, 0),
  map: (inputs, outputs, { expression }) => {
    const operations = expression.instructions.filter(({ operation }) => operation !== "constant").length;
    return moving(inputs, outputs, operations * elements(outputs[0]));
  },
  broadcast: (inputs, outputs) => moving(inputs, outputs, 0),
  transpose: (inputs, outputs) => moving(inputs, outputs, 0),
  slice: (_inputs, [y]) => movedTwice(y!),
  pad_into: (inputs, outputs) => moving(inputs, outputs, 0),
  concatenate: (inputs, outputs) => moving(inputs, outputs, 0),
  gather: ([, ids], [y]) => movedTwice(y!, [ids!]),
  scatter_add: (inputs, outputs) => moving(inputs, outputs, elements(inputs[0])),
  reduce: perInputElement(1),
  argmax: perInputElement(1),
};
