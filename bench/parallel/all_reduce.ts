import { createLocalWorld } from "../../src/backends.ts";
import { bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { type Contestant, interleave } from "../harness/interleave.ts";
import { startOpenMpi } from "../peers/open_mpi.ts";

const bytes = 64 * 2 ** 20;
const ranks = 2;
/** The bar of issue 4. */
const bound = 2;

/** The local all_reduce of 64 MB of float32 over two ranks, in turn with Open MPI's shared memory. */
export async function measureAllReduce(context: SuiteContext): Promise<void> {
  const elements = bytes / 4;
  const world = createLocalWorld(ranks, { timeoutSeconds: 60 });
  const tensors = world.map(() => context.backend.allocate("f32", elements) as Float32Array);
  const expected = ranks + (ranks * (ranks - 1)) / 2;
  const fill = (): void => {
    for (const [rank, tensor] of tensors.entries()) tensor.fill(rank + 1);
  };
  fill();
  await Promise.all(world.map((group, rank) => group.allReduce([tensors[rank]!])));
  for (const tensor of tensors) {
    const wrong = tensor.findIndex((value) => value !== expected);
    if (wrong >= 0) throw new Error(`element ${wrong} of the sum is ${tensor[wrong]}, not ${expected}`);
  }
  const contestants: Contestant[] = [
    {
      name: "Slipstream",
      run: async (repetitions) => {
        const seconds: number[] = [];
        for (let repetition = 0; repetition < repetitions; repetition++) {
          fill();
          const started = performance.now();
          await Promise.all(world.map((group, rank) => group.allReduce([tensors[rank]!])));
          seconds.push((performance.now() - started) / 1000);
        }
        return seconds;
      },
    },
  ];
  const peer = startOpenMpi();
  if ("absent" in peer) context.note(peer.absent);
  else {
    const run = (repetitions: number): number[] => {
      const { seconds, sum } = peer.allReduce(bytes, ranks, repetitions);
      const wanted = 3 + 2 * ((elements - 1) % 7);
      if (sum !== wanted) throw new Error(`Open MPI's sum is ${sum}, not ${wanted}`);
      return seconds;
    };
    contestants.push({ name: peer.version, run: (repetitions) => run(Math.max(repetitions, 5)) });
  }
  const { spreads, failures } = await interleave(contestants, { rounds: 5, seconds: 5 });
  const ours = spreads.get("Slipstream");
  if (ours === undefined) throw new Error(failures.get("Slipstream"));
  const figures: Figure[] = [
    figure("time", "seconds", ours),
    figure("bytes of a rank's tensor", "bytes/s", bytes / ours.median),
  ];
  let ratio: number | undefined;
  if (!("absent" in peer)) {
    const theirs = spreads.get(peer.version);
    if (theirs !== undefined) {
      ratio = theirs.median / ours.median;
      figures.push(figure(`time of ${peer.version}`, "seconds", theirs));
      figures.push(figure("times as fast", "ratio", ratio));
    }
    peer.close();
  }
  for (const group of world) group.close();
  context.report({
    name: "all_reduce, 64 MB of float32, 2 ranks of one machine",
    figures,
    bars: [
      bar(
        "local all_reduce against Open MPI",
        "ratio",
        "at least",
        bound,
        ratio,
        "Open MPI was not measured",
      ),
    ],
    notes: [...failures].map(([name, reason]) => `${name} failed: ${reason}`),
  });
}
