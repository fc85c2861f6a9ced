/** Serving: decoding and reading prompts against llama.cpp, latency under load, loading, memory, quantization. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bar, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import { llama246M, writeRandomGguf } from "../harness/random_gguf.ts";
import { exactFile, servingFile } from "../harness/serving_model.ts";
import { driveServer } from "../load/drive.ts";
import type { PeerProcess } from "../peers/peer_process.ts";
import { describeAbsence } from "../peers/peer_process.ts";
import { startLlamaPeer } from "../peers/peers.ts";
import { checkAgainstPeer } from "../serving/check.ts";
import { measureDecode } from "../serving/decode.ts";
import { measureEndurance } from "../serving/endurance.ts";
import { openEngine } from "../serving/engines.ts";
import { comparePolicies, measureLongPrompt, measureSharedPrefix } from "../serving/latency.ts";
import { measureOverhead } from "../serving/overhead.ts";
import { measurePoisson, startOurs } from "../serving/poisson.ts";
import { measurePrecisions } from "../serving/precisions.ts";
import { measurePrompt } from "../serving/prompt.ts";
import { measureQuality } from "../serving/quality.ts";

/** Time from a file in the page cache to an engine that takes requests. */
async function measureLoading(context: SuiteContext, file: string): Promise<void> {
  const seconds: number[] = [];
  for (let round = 0; round < 4; round++) {
    const measured = await openEngine(context, file);
    seconds.push(measured.loadSeconds);
    await measured.close();
  }
  // The first reads the file into the page cache.
  const spread = spreadOf(seconds.slice(1));
  const title = "loading the Q8_0 file to ready";
  context.report({
    name: title,
    figures: [figure("time", "seconds", spread), figure("the first time", "seconds", seconds[0]!)],
    bars: [bar(title, "seconds", "at most", 1.5, spread.median)],
    notes: [],
  });
}

async function measureFile(
  context: SuiteContext,
  type: "Q8_0" | "Q4_0",
  llama: PeerProcess | undefined,
): Promise<void> {
  const file = await servingFile(type);
  const measured = await openEngine(context, file, { maximumSequences: 32 });
  try {
    if (llama !== undefined) {
      const { threads } = context.machine;
      await llama.request({ task: "open", threads, file, sequences: 32, context: 32 * 1024, batch: 512 });
      await checkAgainstPeer(measured, llama, type);
    }
    for (const streams of [1, 8, 32]) await measureDecode(context, measured, llama, type, streams);
    if (type === "Q8_0") {
      await measurePrompt(context, measured, llama);
      await measureLongPrompt(context, measured);
      await measureSharedPrefix(context, measured);
      await measureOverhead(context, measured);
    }
  } finally {
    await measured.close();
  }
}

/** Many small requests: a model so small that ten thousand take seconds. */
async function endure(context: SuiteContext): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "slipstream-endurance-"));
  try {
    const file = join(folder, "tiny.gguf");
    await writeRandomGguf(
      file,
      { dim: 64, layers: 2, heads: 4, groups: 2, ffn: 128, vocabulary: 1200, positions: 512 },
      "F32",
    );
    const server = await startOurs(file, context.machine.threads);
    try {
      await measureEndurance(context, server, 1200);
    } finally {
      await server.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const run: RunSuite = async (context) => {
  if (context.server !== undefined) {
    await driveServer(context, context.server);
    return;
  }
  const launcher = fileURLToPath(new URL("../../bin/slipstream.js", import.meta.url));
  const { status } = spawnSync(process.execPath, [launcher, "serve", "--help"]);
  if (status !== 0)
    throw new Error("`slipstream serve --help` failed: build the package first (npm run build)");
  context.note(
    `a Llama of ${llama246M.layers} layers of ${llama246M.dim}, 246 million random parameters, as GGUF files`,
  );
  const peer = await startLlamaPeer();
  const llama = peer.present ? peer : undefined;
  if (!peer.present) context.note(describeAbsence(peer));
  else context.note(`node-llama-cpp ${peer.info.node_llama_cpp}: ${peer.info.llama_system}`);
  try {
    await measureFile(context, "Q8_0", llama);
    await measureFile(context, "Q4_0", llama);
  } finally {
    await llama?.close();
  }
  const file = await servingFile("Q8_0");
  await measureLoading(context, file);
  await comparePolicies(context, async (policy) => {
    // Exact numbers, in which equal answers can be asked for.
    return await openEngine(context, await exactFile(), { policy, precision: "f32", maximumSequences: 32 });
  });
  await measurePrecisions(context);
  await measurePoisson(context, file, llama !== undefined);
  await endure(context);
  await measureQuality(context);
};
