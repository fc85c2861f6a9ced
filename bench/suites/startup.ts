/** How long `slipstream --help` takes from process to process, beside Node itself. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite } from "../../src/cli/bench/suite.ts";
import { interleave, timeEach } from "../harness/interleave.ts";

const launcher = fileURLToPath(new URL("../../bin/slipstream.js", import.meta.url));

/** Runs Node with arguments to its end. @throws where it fails or does not print `expected`. */
function runNode(parameters: readonly string[], expected: string): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, parameters, { encoding: "utf8" });
  if (status === 0 && stdout.includes(expected)) return;
  throw new Error(`node ${parameters.join(" ")} ended with status ${status}: ${stderr || stdout}`);
}

export const run: RunSuite = async (context) => {
  const help = (): void => runNode([launcher, "--help"], "Usage: slipstream");
  const bare = (): void => runNode(["--eval", "console.log('up')"], "up");
  const result = await interleave(
    [
      { name: "help", run: (repetitions) => timeEach(help, repetitions) },
      { name: "node", run: (repetitions) => timeEach(bare, repetitions) },
    ],
    // Ten processes each, one at a time.
    { rounds: 10, seconds: 0 },
  );
  for (const [name, reason] of result.failures) throw new Error(`${name}: ${reason}`);
  const ours = result.spreads.get("help")!;
  context.report({
    name: "slipstream --help",
    figures: [
      figure("time", "seconds", ours),
      figure("Node itself, printing one word", "seconds", result.spreads.get("node")!),
    ],
    bars: [bar("slipstream --help", "seconds", "at most", 0.15, ours.median)],
    notes: [],
  });
};
