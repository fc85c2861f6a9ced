/**
 * Training with states on disk: the 30M-parameter Llama against the same run in memory, and a model of a billion
 * parameters whose states are four times the memory that it may take. Each run is a process of its own.
 */
import { mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { measureBandwidth, type StoreBandwidth } from "../../src/runtime/store.ts";
import { offloadAll } from "../../src/train/offload/settings.ts";
import type { OffloadCase, OffloadResult } from "../children/offload.ts";
import { runChild } from "../harness/child.ts";
import { llama30M } from "../harness/llama.ts";

/** The bars of issue 4. */
const allowedStates = 0.25;
const allowedSpeed = 0.5;
const allowedBandwidth = 0.85;
const limit = 4 * 2 ** 30;

/** A Llama of a billion parameters. */
const llama1B = { dim: 2048, layers: 18, heads: 32, ffn: 5632, vocabulary: 32_000 };
/** What its states take on disk: four buffers of float32 and a copy in bf16. */
const diskBytes1B = 1.06e9 * 18;

async function train(training: OffloadCase): Promise<OffloadResult> {
  return JSON.parse(await runChild("offload", [JSON.stringify(training)])) as OffloadResult;
}

async function measureDisk(folder: string): Promise<StoreBandwidth> {
  const backend = createNativeBackend();
  const store = backend.openStore!(folder, 2 ** 29);
  const bandwidth = await measureBandwidth(store, backend.allocate("u8", 2 ** 24));
  store.close();
  return bandwidth;
}

/** What a process held beside its program's own start and the activations of the run in memory. */
function residentStates({ base, peak }: OffloadResult, activations: number): number | undefined {
  return base === undefined || peak === undefined ? undefined : peak - base - activations;
}

async function againstMemory({ report }: SuiteContext, folder: string, disk: StoreBandwidth): Promise<void> {
  const shared: OffloadCase = {
    ...{ shape: llama30M, dtype: "bf16", rows: 8, length: 256, accumulation: 8, steps: 2 },
  };
  const memory = await train(shared);
  const offload = { ...offloadAll(folder), halfParameters: true };
  const tiered = await train({ ...shared, offload });
  if (tiered.losses.some((loss, step) => loss !== memory.losses[step])) {
    throw new Error(`losses differ: ${tiered.losses.join()} on disk, ${memory.losses.join()} in memory`);
  }
  const [kept, resident] = [memory, tiered].map((result) => residentStates(result, memory.arena));
  const share = kept === undefined || resident === undefined ? undefined : resident / kept;
  const speed = tiered.tokensPerSecond / memory.tokensPerSecond;
  const bandwidth = tiered.diskBytes / 2 / tiered.stepSeconds / disk.both;
  const figures: Figure[] = [
    figure("disk, reading", "bytes/s", disk.read),
    figure("disk, writing", "bytes/s", disk.write),
    figure("disk, both at once", "bytes/s", disk.both),
    figure("in memory", "tokens/s", memory.tokensPerSecond),
    figure("on disk", "tokens/s", tiered.tokensPerSecond),
    figure("moved in a step", "bytes", tiered.diskBytes / 2),
    figure("share of the disk's bandwidth", "ratio", bandwidth),
  ];
  if (kept !== undefined) figures.push(figure("resident states in memory", "bytes", kept));
  if (resident !== undefined) figures.push(figure("resident states on disk", "bytes", resident));
  // Either bar will do: a disk that is busy cannot be faster.
  const busy = speed < allowedSpeed && bandwidth >= allowedBandwidth;
  report({
    name: "30M parameters, all states on disk, 8 x 8 x 256 tokens a step, bf16",
    figures,
    bars: [
      bar(
        "states on disk: resident set",
        "share",
        "at most",
        allowedStates,
        share,
        share === undefined ? "the system does not tell resident memory" : undefined,
      ),
      busy
        ? bar("states on disk: the disk's bandwidth", "share", "at least", allowedBandwidth, bandwidth)
        : bar("states on disk: tokens/s against memory", "ratio", "at least", allowedSpeed, speed),
    ],
    notes: ["the losses of both runs are the same bits"],
  });
}

async function billion({ report }: SuiteContext, folder: string): Promise<void> {
  const name = "1B parameters, bf16, AdamW, states on disk, 1 x 256 tokens a step";
  const measure = "peak resident set of a billion parameters";
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < diskBytes1B * 1.1) {
    const reason = `the disk of ${folder} has no room for ${Math.round(diskBytes1B / 1e9)} GB`;
    const bars = [bar(measure, "bytes", "at most", limit, undefined, reason)];
    return report({ name, figures: [], bars, notes: [] });
  }
  const offload = { ...offloadAll(folder), subGroup: 2 ** 22, window: 2 ** 26, halfParameters: true };
  const shared = { shape: llama1B, dtype: "bf16", rows: 1, length: 256, accumulation: 1 } as const;
  const result = await train({ ...shared, steps: 1, recomputeEvery: 1, offload });
  const [first, last] = [result.losses[0]!, result.losses.at(-1)!];
  if (!(last < first)) throw new Error(`the loss did not fall: ${result.losses.join()}`);
  const reason = result.peak === undefined ? "the system does not tell resident memory" : undefined;
  report({
    name,
    figures: [
      figure("step", "seconds", result.stepSeconds),
      figure("moved in a step", "bytes", result.diskBytes),
      figure("disk while training", "bytes/s", result.diskBytes / result.stepSeconds),
      ...(result.peak === undefined ? [] : [figure("peak of resident memory", "bytes", result.peak)]),
    ],
    bars: [bar(measure, "bytes", "at most", limit, result.peak, reason)],
    notes: ["states in memory would take 17 GB"],
  });
}

/** States on disk: the 30M model against memory, and a billion parameters within 4 GiB. */
export const measureOffload: RunSuite = async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "slipstream-bench-"));
  try {
    await againstMemory(context, folder, await measureDisk(folder));
    await billion(context, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
