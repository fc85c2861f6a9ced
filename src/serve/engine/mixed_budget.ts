import type { EngineLimits } from "./options.ts";
import type { StepProgram } from "./program.ts";

/** Where nothing is measured: on backends that compute on the event loop. */
export const assumedMixedBudget = 16;

/** A step that reads prompts beside answers should take no longer than so many decodes of one token. */
const longestMixedStep = 1.75;

/** Tokens of the long step that is measured: enough for its time to be that of its arithmetic. */
const manyTokens = 64;

/**
 * How many tokens a step may run before it takes much longer than one that writes a single token. Reading the weights
 * takes the same time whatever the step runs; up to some number of tokens their arithmetic hides behind it. That number
 * differs by an order between machines, so it is measured: two steps of one token, two of many.
 */
export async function measureMixedBudget(program: StepProgram, limits: EngineLimits): Promise<number> {
  const many = Math.min(manyTokens, limits.tokenBudget, limits.maximumContext);
  const seconds = { one: Infinity, many: Infinity };
  for (let run = 0; run < 2; run++) {
    seconds.one = Math.min(seconds.one, await program.measure(1));
    seconds.many = Math.min(seconds.many, await program.measure(many));
  }
  const perToken = seconds.many / many;
  const tokens = Math.round((longestMixedStep * seconds.one) / perToken);
  return Math.min(Math.max(tokens, assumedMixedBudget / 2), limits.tokenBudget);
}
