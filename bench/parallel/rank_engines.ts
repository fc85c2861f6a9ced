import { createLocalWorld, createNativeBackend } from "../../src/backends.ts";
import { Mesh } from "../../src/parallel/mesh.ts";
import type { EmulatedLink } from "../../src/runtime/group.ts";
import type { NativeBackend } from "../../src/runtime/native/backend.ts";
import type { StepResult, TrainingEngine } from "../../src/train/engine.ts";
import { joinMesh } from "../../src/train/rank.ts";
import { learningRate, randomBatch, startTraining, type TrainingCase } from "../harness/llama.ts";

/** Ranks of this process that train one model together, each with batches of its own. */
export interface RankEngines {
  readonly engines: readonly TrainingEngine[];
  /** One step of all ranks: the result of the first, and the seconds until the last is done. */
  step(): Promise<StepResult & { readonly wallSeconds: number }>;
  /** Bytes that the first rank sent so far over the data axis. */
  sentBytes(): number;
  close(): void;
}

/** Starts data-parallel ranks, the machine's threads shared out among them. */
export async function startRanks(
  ranks: number,
  threads: number,
  training: Omit<TrainingCase, "rank">,
  link?: EmulatedLink,
): Promise<RankEngines> {
  const world = createLocalWorld(ranks, {
    timeoutSeconds: 300,
    ...(link === undefined ? {} : { links: { data: link } }),
  });
  const each = Math.max(1, Math.floor(threads / ranks));
  const backends: NativeBackend[] = world.map(() => createNativeBackend({ isolated: true, threads: each }));
  const joined = await Promise.all(
    world.map((group, rank) => joinMesh(group, new Mesh({ data: ranks }, rank), ranks)),
  );
  const engines = await Promise.all(
    joined.map((rank, index) => startTraining(backends[index]!, { ...training, rank })),
  );
  const { rows, length, shape, accumulation = 1 } = training;
  const batches = engines.map((_, rank) =>
    Array.from({ length: accumulation }, (_, index) =>
      randomBatch(rows, length, shape.vocabulary, 4 + rank * accumulation + index),
    ),
  );
  return {
    engines,
    step: async () => {
      const started = performance.now();
      const results = await Promise.all(
        engines.map((engine, rank) => engine.step(batches[rank]!, { learningRate })),
      );
      return { ...results[0]!, wallSeconds: (performance.now() - started) / 1000 };
    },
    sentBytes: () => joined[0]!.groups.get("data")!.traffic().bytes,
    close: () => {
      for (const engine of engines) engine.dispose();
      for (const group of world) group.close();
      for (const backend of backends) backend.dispose();
    },
  };
}
