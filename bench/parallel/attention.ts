import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import { prepare, rankSeconds } from "../harness/context_attention.ts";

/** The bar of issue 4. */
const least = 1.3;

/** Causal attention over 16k tokens on four ranks: the slowest rank's kernel time, ring against striped. */
export async function measureRings({ report }: SuiteContext): Promise<void> {
  const isa: IsaName = loadAddon().detectedIsa();
  for (const dtype of ["f32", "bf16"] as const) {
    const options = { dtype, tokens: 16_384, heads: 2, size: 64, ranks: 4, isa, threads: 1 };
    const whole = prepare(options);
    const [ring, striped] = (["contiguous", "striped"] as const).map((order) =>
      Math.max(...rankSeconds(options, order, whole, 3)),
    );
    const ratio = ring! / striped!;
    report({
      name: `${dtype}, causal attention over 16,384 tokens on 4 ranks, one thread each`,
      figures: [
        figure("one rank with all tokens", "seconds", whole.seconds),
        figure("ring, the slowest rank", "seconds", ring!),
        figure("striped, the slowest rank", "seconds", striped!),
        figure("striped by a fourth of one rank", "ratio", striped! / (whole.seconds / 4)),
        figure("ring by striped", "ratio", ratio),
      ],
      bars: [bar(`${dtype} 16k, 4 ranks: striped against ring`, "ratio", "at least", least, ratio)],
      notes: [],
    });
  }
}
