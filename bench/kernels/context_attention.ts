/**
 * Causal attention over 16k tokens on 4 ranks: `node bench/kernels/context_attention.ts [isa]`. The kernel time of
 * the slowest rank where each has a stretch of the tokens, and where they are dealt in turn; beside it that of one
 * rank with all tokens, of which a fourth would be the best.
 */

import type { IsaName } from "../../src/runtime/native/addon.ts";
import { loadAddon } from "../../src/runtime/native/addon.ts";
import { prepare, rankSeconds } from "../harness/context_attention.ts";

const isa = (process.argv[2] ?? loadAddon().detectedIsa()) as IsaName;
const milliseconds = (seconds: number): string => `${(seconds * 1e3).toFixed(0).padStart(6)} ms`;

for (const dtype of ["f32", "bf16"] as const) {
  const options = { dtype, tokens: 16_384, heads: 2, size: 64, ranks: 4, isa, threads: 1 };
  const whole = prepare(options);
  const [ring, striped] = (["contiguous", "striped"] as const).map((order) =>
    Math.max(...rankSeconds(options, order, whole, 2)),
  );
  console.log(
    `${dtype} one rank with all tokens  ${milliseconds(whole.seconds)}, a fourth ${milliseconds(whole.seconds / 4)}`,
  );
  console.log(`${dtype} ring, slowest of 4 ranks  ${milliseconds(ring!)}`);
  console.log(
    `${dtype} striped, slowest          ${milliseconds(striped!)}: ring takes ${(ring! / striped!).toFixed(2)} times as long`,
  );
}
