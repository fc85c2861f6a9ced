import type { ContextPlan } from "../parallel/context/context_parallel.ts";
import { contextPlan } from "../parallel/context/methods.ts";
import { sequenceDegrees } from "./config/ranks.ts";
import type { TrainConfig } from "./config/schema/schema.ts";

/**
 * How attention meets the tokens of the other ranks of a sequence axis, as `sequence_parallel` says; undefined where it
 * exchanges them for heads, or where there is one rank.
 */
export function contextPlanOf(
  config: Pick<TrainConfig, "sequence_parallel">,
  ranks: number,
): ContextPlan | undefined {
  const { mode, placement, inner_ring: innerRing } = config.sequence_parallel;
  if (ranks === 1 || mode === "ulysses" || mode === "dsp") return undefined;
  const { heads } = sequenceDegrees(config, ranks);
  return contextPlan(mode, ranks, { heads, placement, ...(innerRing === undefined ? {} : { innerRing }) });
}
