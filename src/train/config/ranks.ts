import { ConfigError } from "../../base/errors.ts";
import type { ModelFacts } from "../../models/family.ts";
import { type MeshAxis, type MeshSizes, meshAxes, requireMesh } from "../../parallel/mesh.ts";
import type { TrainConfig } from "./schema/schema.ts";

/** The mesh that a config asks for on `worldSize` ranks: `data` is what remains where it is left out. */
export function resolveMesh(
  config: Pick<TrainConfig, "parallel" | "tensor_parallel">,
  worldSize: number,
): MeshSizes {
  const { pipeline = 1, sequence = 1, expert = 1, data } = config.parallel;
  const tensor = config.parallel.tensor ?? config.tensor_parallel.autotp_size ?? 1;
  const others = pipeline * sequence * expert * tensor;
  const sizes = {
    pipeline,
    data: data ?? Math.max(1, Math.floor(worldSize / others)),
    expert,
    sequence,
    tensor,
  };
  requireMesh(sizes, worldSize);
  return sizes;
}

/** Ranks that each compute rows of their own: what the batch is divided by. */
export function batchRanks(sizes: MeshSizes): number {
  return sizes.data * sizes.expert;
}

/** Ranks of the sequence axis that split heads and that form a ring. */
export function sequenceDegrees(
  config: Pick<TrainConfig, "sequence_parallel">,
  sequence: number,
): { readonly heads: number; readonly ring: number } {
  const { mode, ulysses_degree: heads, ring_degree: ring } = config.sequence_parallel;
  switch (mode) {
    case "ulysses":
    case "dsp":
      return { heads: sequence, ring: 1 };
    case "ring":
    case "striped":
    case "burst":
      return { heads: 1, ring: sequence };
    case "usp":
    case "loongtrain": {
      const known = heads ?? sequence / (ring ?? sequence);
      return { heads: known, ring: sequence / known };
    }
  }
}

/** @throws ConfigError where the mesh or the groups of ZeRO cannot split this model, with the legal values. */
export function requireSplits(
  config: TrainConfig,
  sizes: MeshSizes,
  facts: Pick<ModelFacts, "heads" | "groups" | "layers">,
): void {
  const { tensor, sequence, pipeline } = sizes;
  const counts = [
    ["attention heads", facts.heads],
    ["key and value heads", facts.groups],
  ] as const;
  for (const [what, count] of counts) {
    if (count % tensor !== 0)
      refuse(
        "tensor",
        `${count} ${what} cannot be split over the tensor axis`,
        tensor,
        divisorsOf(commonDivisor(facts)),
      );
  }
  const { heads } = sequenceDegrees(config, sequence);
  const local = facts.heads / tensor;
  if (local % heads !== 0) {
    refuse(
      "sequence",
      `${local} attention heads${tensor > 1 ? " of a tensor rank" : ""} cannot be split over the ranks that split heads`,
      heads,
      divisorsOf(local),
    );
  }
  const length = config.data.sequence_length;
  if (length % sequence !== 0) {
    refuse(
      "sequence",
      `rows of ${length} tokens cannot be split over the sequence axis`,
      sequence,
      divisorsOf(length, sequence * 4),
    );
  }
  const chunks = config.pipeline.schedule === "interleaved" ? (config.pipeline.chunks ?? 2) : 1;
  if (facts.layers < pipeline * chunks) {
    throw new ConfigError("bad_mesh", `the model has too few layers for the pipeline`, {
      where: "parallel.pipeline",
      expected: `at most ${facts.layers} parts (one layer each)`,
      received: `${pipeline} stages${chunks > 1 ? ` x ${chunks} chunks` : ""} = ${pipeline * chunks}`,
    });
  }
  const { mics_shard_size: mics, zero_hpz_partition_size: hpz } = config.zero_optimization;
  for (const [key, size] of [
    ["mics_shard_size", mics],
    ["zero_hpz_partition_size", hpz],
  ] as const) {
    if (size > 1 && sizes.data % size !== 0) {
      throw new ConfigError(
        "bad_mesh",
        `the data ranks do not divide into groups of zero_optimization.${key}`,
        {
          where: `zero_optimization.${key}`,
          expected: `one of ${divisorsOf(sizes.data).join(", ")} (${sizes.data} data ranks)`,
          received: String(size),
        },
      );
    }
  }
}

function refuse(axis: MeshAxis, summary: string, received: number, legal: readonly number[]): never {
  throw new ConfigError("bad_mesh", summary, {
    where: `parallel.${axis}`,
    expected: `one of ${legal.join(", ")}`,
    received: String(received),
  });
}

function commonDivisor({ heads, groups }: Pick<ModelFacts, "heads" | "groups">): number {
  let [a, b] = [heads, groups];
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

function divisorsOf(value: number, most = value): number[] {
  const divisors: number[] = [];
  for (let divisor = 1; divisor <= Math.min(value, most); divisor++)
    if (value % divisor === 0) divisors.push(divisor);
  return divisors;
}

/** Axes that a mesh uses, in words: `data 2 x tensor 2`. */
export function describeMesh(sizes: MeshSizes): string {
  const wide = meshAxes.filter((axis) => sizes[axis] > 1).map((axis) => `${axis} ${sizes[axis]}`);
  return wide.length === 0 ? "one rank" : wide.join(" x ");
}
