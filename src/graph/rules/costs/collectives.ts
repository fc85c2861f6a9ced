import type { CollectiveOp, RankGroup } from "../../ops.ts";
import type { ConcreteType, CostRule } from "../cost.ts";
import { elements, totalBytes } from "./common.ts";

/** What a rank does to its own memory for a collective; `communicationOf` says what passes between ranks. */
export const collectiveCosts: { readonly [Op in CollectiveOp]: CostRule<Op> } = {
  all_reduce: (inputs, outputs, { group }) => summing(inputs, outputs, group),
  reduce_scatter: (inputs, outputs, { group }) => summing(inputs, outputs, group),
  all_gather: (inputs, outputs) => ({ flops: 0, bytes: totalBytes(...inputs, ...outputs) }),
  all_to_all: (inputs, outputs) => ({ flops: 0, bytes: totalBytes(...inputs, ...outputs) }),
  permute: (inputs, outputs) => ({ flops: 0, bytes: totalBytes(...inputs, ...outputs) }),
};

/** Every rank adds up the terms of its part. */
function summing(inputs: readonly ConcreteType[], outputs: readonly ConcreteType[], { size }: RankGroup) {
  const count = inputs.reduce((sum, input) => sum + elements(input), 0);
  return { flops: (count * (size - 1)) / size, bytes: totalBytes(...inputs, ...outputs) };
}
