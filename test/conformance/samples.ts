import type { OpName } from "../../src/graph/ops.ts";
import { attentionSamples } from "./samples/attention.ts";
import { blockSamples } from "./samples/blocks.ts";
import { collectiveSamples } from "./samples/collectives.ts";
import { elementwiseSamples } from "./samples/elementwise.ts";
import { matrixSamples } from "./samples/matrix.ts";
import { movementSamples } from "./samples/movement.ts";
import { optimizerSamples } from "./samples/optimizer.ts";
import { quantizedSamples } from "./samples/quantized.ts";
import { rowSamples } from "./samples/rows.ts";
import type { OpSamples } from "./samples/sample.ts";
import { samplingSamples } from "./samples/sampling.ts";

/** Sample operands of every op, on shapes that divide no tile; an op without samples does not compile. */
export const samples: { readonly [Op in OpName]: OpSamples<Op> } = {
  ...elementwiseSamples,
  ...movementSamples,
  ...matrixSamples,
  ...quantizedSamples,
  ...blockSamples,
  ...rowSamples,
  ...attentionSamples,
  ...samplingSamples,
  ...optimizerSamples,
  ...collectiveSamples,
};
