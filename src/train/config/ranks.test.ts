import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadConfig } from "./load.ts";
import { batchRanks, describeMesh, requireSplits, resolveMesh, sequenceDegrees } from "./ranks.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-ranks-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = join(folder, "config.yaml");
writeFileSync(
  path,
  `model: { path: models/some }
data: { train: book.txt, sequence_length: 256 }
output_dir: runs/tiny
train_batch_size: 16
`,
);
const config = (...overrides: string[]) => loadConfig(path, overrides);
const facts = { heads: 12, groups: 4, layers: 6 };

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

describe("the mesh of a config", () => {
  it.each([
    [[], 4, { data: 4 }],
    [["parallel={tensor: 2, pipeline: 2}"], 8, { pipeline: 2, data: 2, tensor: 2 }],
    [["parallel={data: 1, sequence: 4}"], 4, { sequence: 4 }],
    [["tensor_parallel.autotp_size=2"], 2, { tensor: 2 }],
    [["parallel=auto"], 2, { data: 2 }],
  ] as const)("%j on %i ranks", (overrides, ranks, expected) => {
    const whole = { pipeline: 1, data: 1, expert: 1, sequence: 1, tensor: 1, ...expected };
    expect(resolveMesh(config(...overrides), ranks)).toEqual(whole);
  });

  it("is refused where its axes do not multiply to the ranks, with what would", () => {
    expect(messageOf(() => resolveMesh(config("parallel={data: 3}"), 4))).toMatch(
      /do not multiply[\s\S]*expected: 4 ranks\n.*received: data 3 = 3\n.*set parallel.data to 4/,
    );
    expect(messageOf(() => resolveMesh(config("parallel={tensor: 3}"), 4))).toMatch(
      /received: tensor 3 = 3\n.*start 3 ranks/,
    );
    expect(messageOf(() => resolveMesh(config("parallel={tensor: 8}"), 4))).toContain("start 8 ranks");
  });

  it("divides the batch by the ranks that compute rows of their own", () => {
    expect(batchRanks(resolveMesh(config("parallel={tensor: 2}"), 8))).toBe(4);
  });

  it("is named by the axes that have several ranks", () => {
    expect(describeMesh(resolveMesh(config("parallel={tensor: 2}"), 8))).toBe("data 4 x tensor 2");
    expect(describeMesh(resolveMesh(config(), 1))).toBe("one rank");
  });
});

describe("the degrees of a sequence axis", () => {
  it.each([
    ["mode: ulysses", { heads: 4, ring: 1 }],
    ["mode: striped", { heads: 1, ring: 4 }],
    ["mode: usp, ulysses_degree: 2", { heads: 2, ring: 2 }],
    ["mode: loongtrain, ring_degree: 4", { heads: 1, ring: 4 }],
  ])("%s", (section, expected) => {
    expect(sequenceDegrees(config("parallel.sequence=4", `sequence_parallel={${section}}`), 4)).toEqual(
      expected,
    );
  });
});

describe("what a model cannot be split into", () => {
  it.each([
    [
      ["parallel.tensor=3"],
      3,
      /4 key and value heads cannot be split over the tensor axis\n.*parallel.tensor\n.*one of 1, 2, 4\n.*received: 3/,
    ],
    [
      ["parallel.tensor=8"],
      8,
      /12 attention heads cannot be split over the tensor axis[\s\S]*one of 1, 2, 4\n/,
    ],
    [
      ["parallel={tensor: 2, sequence: 4}"],
      8,
      /6 attention heads of a tensor rank cannot be split[\s\S]*one of 1, 2, 3, 6\n.*received: 4/,
    ],
    [
      ["parallel.sequence=3", "sequence_parallel.mode=ring"],
      3,
      /rows of 256 tokens cannot be split over the sequence axis[\s\S]*one of 1, 2, 4, 8\n/,
    ],
    [["parallel.pipeline=8"], 8, /too few layers for the pipeline[\s\S]*at most 6 parts/],
    [
      ["parallel.pipeline=4", "pipeline.schedule=interleaved"],
      4,
      /too few layers[\s\S]*received: 4 stages x 2 chunks = 8/,
    ],
    [
      ["zero_optimization={stage: 3, mics_shard_size: 3}"],
      4,
      /do not divide into groups of zero_optimization.mics_shard_size[\s\S]*one of 1, 2, 4 \(4 data ranks\)/,
    ],
  ] as const)("%j", (overrides, ranks, message) => {
    const parsed = config(...overrides);
    expect(messageOf(() => requireSplits(parsed, resolveMesh(parsed, ranks), facts))).toMatch(message);
  });

  it("lets through what can be split", () => {
    const parsed = config("parallel={tensor: 2, sequence: 2, pipeline: 2}", "zero_optimization.stage=1");
    expect(() => requireSplits(parsed, resolveMesh(parsed, 8), facts)).not.toThrow();
  });
});

describe("sections about ranks that contradict each other", () => {
  it.each([
    [
      ["zero_optimization={stage: 3, offload_optimizer: {device: nvme}}"],
      "there is no folder for the optimizer states on disk",
      "expected: zero_optimization.offload_optimizer.nvme_path or memory.nvme_path",
    ],
    [
      ["zero_optimization={offload_optimizer: {interleave: always}}", "gradient_clipping=1"],
      "parameters cannot be updated during backward: clipping needs the norm of the whole gradient",
      "expected: zero_optimization.offload_optimizer.interleave: auto or never",
    ],
    [
      ["zero_optimization={offload_optimizer: {interleave: always}}", "fp16.enabled=true"],
      "loss scaling looks for overflows in the whole gradient",
    ],
    [
      [
        "zero_optimization={stage: 3, offload_optimizer: {device: nvme, nvme_path: /a}, offload_param: {device: nvme}}",
        "memory.nvme_path=/b",
      ],
      "a rank keeps all of its states on disk in one file",
      "received: /a and /b",
    ],
    [
      ["activation_checkpointing.cpu_checkpointing=true"],
      "there is no folder for activations on disk",
      "host memory is what activations are in already",
    ],
    [
      ["activation_checkpointing.cpu_checkpointing=true", "memory.nvme_path=/b", "parallel.pipeline=2"],
      "activations of a pipeline stay in memory",
    ],
    [
      ["activation_checkpointing.partition_activations=true", "tensor_parallel.sequence_sharded_norms=false"],
      "only where it is computed so",
      "expected: tensor_parallel.sequence_sharded_norms: true",
    ],
    [
      ["zero_optimization={stage: 2, offload_param: {device: cpu}}"],
      "only partitioned parameters can be offloaded",
      "received: stage 2",
    ],
    [
      ["zero_optimization={stage: 2, zero_quantized_weights: true}"],
      "zero_quantized_weights is about partitioned parameters",
    ],
    [
      ["zero_optimization={stage: 1, zero_quantized_gradients: true}"],
      "zero_quantized_gradients is about partitioned gradients",
      "stage: 2 or 3",
    ],
    [
      ["zero_optimization={stage: 3, mics_shard_size: 2, zero_hpz_partition_size: 2}"],
      "hpZ and MiCS are two ways",
    ],
    [
      ["zero_optimization={stage: 3, mics_hierarchical_params_gather: true}"],
      "is not available in this version",
    ],
    [
      ["zero_optimization={stage: 3, chunk_manager: true}"],
      "zero_optimization.chunk_manager is not available in this version",
    ],
    [
      ["zero_optimization={stage: 3, offload_param: {device: cpu, max_in_cpu: 1000}}"],
      "zero_optimization.offload_param.max_in_cpu is not available in this version",
    ],
    [["zero_optimization.offload_optimizer.ratio=0.5"], "zero_optimization.offload_optimizer.ratio", "1"],
    [["aio.block_size=5000"], "in whole blocks", "a multiple of 4096 bytes", "such as 8192"],
    [["aio.thread_count=1000"], "aio.thread_count is more than a disk can use", "at most 64"],
    [["parallel.tensor=2", "tensor_parallel.autotp_size=4"], "two names of one number", "received: 4 and 2"],
    [["parallel.expert=2"], "the model has no experts to split"],
    [["pipeline.schedule=gpipe"], "a schedule without stages does nothing", "set parallel.pipeline"],
    [
      ["parallel.pipeline=2", "pipeline.chunks=2"],
      "pipeline.chunks counts only with schedule: interleaved",
      "received: schedule: 1f1b",
    ],
    [["parallel.pipeline=2", "pipeline={schedule: interleaved, chunks: 1}"], "several chunks a stage"],
    [
      ["parallel.pipeline=2", "zero_optimization.stage=3"],
      "a pipeline and zero_optimization.stage 3 exclude each other",
      "expected: stage 0 or 1 with a pipeline",
    ],
    [["sequence_parallel.mode=ring"], "there are no ranks to split sequences over"],
    [
      ["parallel.sequence=4", "sequence_parallel={mode: ring, ulysses_degree: 2}"],
      "ulysses_degree counts only with mode: usp or loongtrain",
    ],
    [["parallel.sequence=4", "sequence_parallel={mode: ulysses, inner_ring: 2}"], "inner_ring counts only"],
    [["parallel.sequence=4", "sequence_parallel.mode=usp"], "needs to know how", "such as ulysses_degree: 2"],
    [
      ["parallel.sequence=4", "sequence_parallel={mode: usp, ulysses_degree: 3}"],
      "the degrees do not multiply to parallel.sequence",
      "received: ulysses_degree 3 x ring_degree ?",
    ],
    [["elasticity={enabled: true, min_gpus: 4, max_gpus: 2}"], "min_gpus is above max_gpus", "4 > 2"],
    [["parallel.tensor_parallel=2"], "did you mean parallel.tensor?"],
    [["comm.links.data={}"], "comm.links.data.bandwidth is missing"],
    [["comm.links.model={bandwidth: 1GB}"], "unknown key comm.links.model"],
    [["memory.limit=4GiBs"], "expected: bytes, such as 512MiB"],
  ])("%j", (overrides, ...parts) => {
    const message = messageOf(() => config(...overrides));
    for (const part of parts) expect(message).toContain(part);
  });

  it("are not seen where there are none", () => {
    const parsed = config(
      "zero_optimization={stage: 3, offload_param: {device: nvme}, offload_optimizer: {device: nvme, nvme_path: /mnt}}",
      "memory={limit: 4GiB, nvme_path: /mnt}",
      "comm={timeout_seconds: 5, links: {data: {bandwidth: 1GB, latency: 1e-5}}}",
      "parallel={sequence: 4}",
      "sequence_parallel={mode: loongtrain, ulysses_degree: 2, ring_degree: 2, inner_ring: 2}",
    );
    expect(parsed.memory.limit).toBe(4 * 2 ** 30);
    expect(parsed.comm.links.data).toEqual({ bandwidth: 1e9, latency: 1e-5 });
  });
});
