import { ConfigError, InternalError } from "../../base/errors.ts";
import type { CoreOptions, CoreRequest } from "./types.ts";

/** @throws ConfigError naming the limit that no schedule could keep. */
export function checkOptions(options: CoreOptions): void {
  const smallest = {
    blockSize: 1,
    blocks: 1,
    tokenBudget: 1,
    maximumSequences: 1,
    maximumWaiting: 0,
    maximumContext: 2,
  };
  for (const [name, least] of Object.entries(smallest) as [keyof typeof smallest, number][]) {
    if (isCount(options[name], least)) continue;
    throw new ConfigError("invalid_serving_limit", `${name} is not a limit to serve within`, {
      expected: `a whole number of at least ${least}`,
      received: String(options[name]),
    });
  }
  const { mixedTokenBudget = 1 } = options;
  if (!isCount(mixedTokenBudget, 1)) {
    throw new ConfigError("invalid_serving_limit", "mixedTokenBudget is not a limit to serve within", {
      expected: "a whole number of at least 1",
      received: String(mixedTokenBudget),
    });
  }
  if (options.tokenBudget < options.maximumSequences) {
    throw new ConfigError("invalid_serving_limit", "a step is too short to run every sequence by one token", {
      expected: "a tokenBudget of at least maximumSequences",
      received: `tokenBudget ${options.tokenBudget}, maximumSequences ${options.maximumSequences}`,
      hint: "raise tokenBudget or lower maximumSequences",
    });
  }
}

/** @throws InternalError for a request that should not have come as far as the scheduler. */
export function checkRequest(request: CoreRequest): void {
  const { id, prompt, answers, maximumTokens, priority = 0 } = request;
  if (prompt.length === 0) throw new InternalError(`request ${id} has an empty prompt`);
  if (!isCount(answers, 1)) throw new InternalError(`request ${id} asks for ${answers} answers`);
  if (!isCount(maximumTokens, 1)) throw new InternalError(`request ${id} asks for ${maximumTokens} tokens`);
  if (!Number.isFinite(priority)) throw new InternalError(`request ${id} has the priority ${priority}`);
}

function isCount(value: number, least: number): boolean {
  return Number.isSafeInteger(value) && value >= least;
}
