import { expect, test } from "vitest";
import { createLocalWorld } from "../../src/backends.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";

/** Collectives over links that are pretended take at least as long as over such links: lower bounds only. */

const bytes = 40_000;
const tensor = () => new Float32Array(bytes / 4);

/** Seconds until every rank is done. */
async function time(pending: () => readonly Promise<unknown>[]): Promise<number> {
  const started = performance.now();
  await Promise.all(pending());
  return (performance.now() - started) / 1000;
}

const group = (world: readonly ProcessGroup[], name: string): Promise<ProcessGroup[]> =>
  Promise.all(
    world.map((end) =>
      end.subgroup(
        name,
        world.map((_, rank) => rank),
      ),
    ),
  );

test("bytes and messages are paid for, by the algorithms of rings", async () => {
  const latency = 0.002;
  const bandwidth = 1e6;
  const world = createLocalWorld(4, { timeoutSeconds: 30, links: { data: { bandwidth, latency } } });
  const data = await group(world, "data+sequence");
  const cases: [string, number, (end: ProcessGroup) => Promise<unknown>][] = [
    // all_reduce: 2 x 3/4 of 40 kB in 6 messages.
    ["all_reduce", 6 * latency + 60_000 / bandwidth, (end) => end.allReduce([tensor()])],
    [
      "reduce_scatter",
      3 * latency + 30_000 / bandwidth,
      (end) => end.reduceScatter([tensor()], [new Float32Array(bytes / 16)]),
    ],
    [
      "all_gather",
      3 * latency + 120_000 / bandwidth,
      (end) => end.allGather([tensor()], [new Float32Array(bytes)]),
    ],
    ["all_to_all", 3 * latency + 30_000 / bandwidth, (end) => end.allToAll([tensor()], [tensor()])],
    ["barrier", 2 * latency, (end) => end.barrier()],
  ];
  for (const [name, seconds, call] of cases) {
    const measured = await time(() => data.map(call));
    expect(measured, name).toBeGreaterThanOrEqual(seconds * 0.999);
  }
});

test("a part that one rank alone sends is waited for by all", async () => {
  const world = createLocalWorld(2, {
    timeoutSeconds: 30,
    links: { data: { bandwidth: 1e6, latency: 0 } },
  });
  const [first, second] = (await group(world, "data")) as [ProcessGroup, ProcessGroup];
  const measured = await Promise.all([
    time(() => [first.allToAllVariable(tensor(), [0, 10_000], tensor(), [0, 0])]),
    time(() => [second.allToAllVariable(tensor(), [0, 0], tensor(), [10_000, 0])]),
  ]);
  for (const seconds of measured) expect(seconds).toBeGreaterThanOrEqual(0.0399);
});

test("groups over one axis share its link", async () => {
  const world = createLocalWorld(2, {
    timeoutSeconds: 30,
    links: { data: { bandwidth: 1e6, latency: 0 } },
  });
  const [data, both] = await Promise.all([group(world, "data"), group(world, "data+tensor")]);
  const call = (end: ProcessGroup) => end.allReduce([tensor()]);
  // Twice 40 kB over one link of 1 MB/s, side by side.
  expect(await time(() => [...data, ...both].map(call))).toBeGreaterThanOrEqual(0.0799);
});

test("messages are on their way for as long as the link takes", async () => {
  const world = createLocalWorld(2, { timeoutSeconds: 30 });
  const link = { bandwidth: 1e6, latency: 0.01 };
  const [first, second] = (await Promise.all(world.map((end) => end.subgroup("pipeline", [0, 1], link)))) as [
    ProcessGroup,
    ProcessGroup,
  ];
  const measured = await time(() => [
    first.send([tensor()], 1),
    first.send([tensor()], 1),
    second.receive([tensor()], 0),
    second.receive([tensor()], 0),
  ]);
  expect(measured).toBeGreaterThanOrEqual(0.0999);
});
