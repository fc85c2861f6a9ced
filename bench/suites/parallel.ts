/**
 * Ranks: collectives against Open MPI, ZeRO's bytes and speed, links, states on disk, attention over ranks, pipelines
 * and checkpoints. The 30M model is that of the training suite.
 */
import type { RunSuite } from "../../src/cli/bench/suite.ts";
import { measureAllReduce } from "../parallel/all_reduce.ts";
import { measureRings } from "../parallel/attention.ts";
import { measureCheckpoint } from "../parallel/checkpoint.ts";
import { measureOffload } from "../parallel/offload.ts";
import { measurePipeline } from "../parallel/pipeline.ts";
import { measureLink, measureStageSpeed, measureStateBytes } from "../parallel/stages.ts";

export const run: RunSuite = async (context) => {
  await measureAllReduce(context);
  await measureStateBytes(context);
  await measureStageSpeed(context);
  await measureLink(context);
  await measureRings(context);
  await measurePipeline(context);
  await measureCheckpoint(context);
  await measureOffload(context);
};
