import { createNativeBackend } from "../../src/backends.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import { joinMesh } from "../../src/train/rank.ts";
import type { TrainingRank } from "./tiny_training.ts";

/** Runs `body` with ranks of this process, each with a native backend of its own, and frees them afterwards. */
export async function withNativeRanks<Result>(
  sizes: Partial<MeshSizes>,
  body: (ranks: readonly TrainingRank[]) => Promise<Result>,
): Promise<Result> {
  const size = new Mesh(sizes, 0).worldSize;
  const worlds = createLocalWorld(size, { timeoutSeconds: 60 });
  const backends = worlds.map(() => createNativeBackend({ threads: 1, isolated: true }));
  try {
    const ranks = await Promise.all(
      worlds.map(async (world, index) => {
        return { rank: await joinMesh(world, new Mesh(sizes, index)), backend: backends[index]! };
      }),
    );
    return await body(ranks);
  } finally {
    for (const world of worlds) world.close();
    for (const backend of backends) backend.dispose();
  }
}
