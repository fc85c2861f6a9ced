import type { CollectiveOp, OpAttributes } from "../../../src/graph/ops.ts";
import { normal } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

const group = { axes: "data", size: 1, rank: 0 };

/** A collective of one rank moves nothing: test/parallel/ compares those of several ranks. */
function ofOneRank<Op extends CollectiveOp>(attributes: OpAttributes[Op]): OpSamples<Op> {
  return {
    dtypes: [],
    make: (dtype) => [{ name: "of one rank", inputs: [normal([4, 6], dtype)], attributes }],
  };
}

/** Samples of the ops that ranks do together. */
export const collectiveSamples: { readonly [Op in CollectiveOp]: OpSamples<Op> } = {
  all_reduce: ofOneRank<"all_reduce">({ group }),
  reduce_scatter: ofOneRank<"reduce_scatter">({ group, dimension: 0 }),
  all_gather: ofOneRank<"all_gather">({ group, dimension: 0 }),
  all_to_all: ofOneRank<"all_to_all">({ group, split: 0, concatenate: 1 }),
  permute: ofOneRank<"permute">({ group, offset: 1 }),
};
