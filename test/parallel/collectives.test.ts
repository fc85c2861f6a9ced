import { describe, expect, test } from "vitest";
import { createLocalWorld } from "../../src/backends.ts";
import { fromBf16Bits, toBf16Bits } from "../../src/base/dtype.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { checkCollectives, firstDifference, operand, orderedSum, uniform } from "./collective_suite.ts";

/** Collectives of ranks in one process, against `collectiveRules` and sums in the order of ranks. */

const everyRank = <Result>(
  world: readonly ProcessGroup[],
  body: (group: ProcessGroup, rank: number) => Promise<Result>,
): Promise<Result[]> => Promise.all(world.map(body));

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe.each([1, 2, 3, 4, 8])("%i ranks", (size) => {
  test("every collective, dtype, dimension and bucket", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    expect((await everyRank(world, (group) => checkCollectives(group, size))).flat()).toEqual([]);
  });

  test("all_reduce in place", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    const lengths = [100_003, 5, 0, 1];
    const inputs = world.map((_, rank) =>
      lengths.map((length) => operand("f32", length, rank * 10 + length)),
    );
    const expected = lengths.map((_, index) =>
      orderedSum(
        "f32",
        inputs.map((bucket) => bucket[index]!),
      ),
    );
    const tensors = inputs.map((bucket) => bucket.map((tensor) => tensor.slice()));
    await everyRank(world, async (group, rank) => await group.allReduce(tensors[rank]!));
    for (const bucket of tensors) {
      const differences = bucket.map((tensor, index) => firstDifference(tensor, expected[index]!));
      expect(differences).toEqual(lengths.map(() => -1));
    }
  });

  test("the same under any timing", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    const random = uniform(size);
    const inputs = world.map((_, rank) => operand("f32", 3001, rank));
    const expected = orderedSum("f32", inputs);
    for (let round = 0; round < 12; round++) {
      const results = await everyRank(world, async (group, rank) => {
        await sleep((random() + 1) * 2);
        const tensor = inputs[rank]!.slice();
        await group.allReduce([tensor]);
        return tensor;
      });
      for (const result of results) expect(firstDifference(result, expected)).toBe(-1);
    }
  });

  test("parts of any length", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    // Rank i sends (i + 2 j) % 5 elements to rank j, each of them 100 i + j.
    const count = (from: number, to: number) => (from + 2 * to) % 5;
    const ranks = world.map((_, rank) => rank);
    await everyRank(world, async (group, rank) => {
      const sendCounts = ranks.map((to) => count(rank, to));
      const receiveCounts = ranks.map((from) => count(from, rank));
      const input = Int32Array.from(
        ranks.flatMap((to) => Array.from({ length: count(rank, to) }, () => 100 * rank + to)),
      );
      const expected = ranks.flatMap((from) =>
        Array.from({ length: count(from, rank) }, () => 100 * from + rank),
      );
      const output = new Int32Array(expected.length);
      await group.allToAllVariable(input, sendCounts, output, receiveCounts);
      expect([...output]).toEqual(expected);
    });
  });

  test("broadcast, exchange and barrier", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    const root = size - 1;
    await everyRank(world, async (group, rank) => {
      const tensor = Float32Array.of(rank, rank + 0.5);
      await group.broadcast([tensor], root);
      expect([...tensor]).toEqual([root, root + 0.5]);
      await group.barrier();
      const texts = await group.exchange(new TextEncoder().encode("x".repeat(rank * 3)));
      expect(texts.map((bytes) => bytes.length)).toEqual(world.map((_, each) => each * 3));
    });
  });

  test("sums of bf16 are rounded once", async () => {
    const world = createLocalWorld(size, { timeoutSeconds: 30 });
    // 1 + 2^-8 (size - 1): each term alone would be rounded away.
    const expected = toBf16Bits(1 + 2 ** -8 * (size - 1));
    await everyRank(world, async (group, rank) => {
      const tensor = Uint16Array.of(toBf16Bits(rank === 0 ? 1 : 2 ** -8));
      await group.allReduce([tensor]);
      expect(fromBf16Bits(tensor[0]!)).toBe(fromBf16Bits(expected));
    });
  });
});

test("messages between two ranks keep their order and never wait for the receiver", async () => {
  const [first, second] = createLocalWorld(2, { timeoutSeconds: 30 }) as [ProcessGroup, ProcessGroup];
  const message = Float32Array.of(1, 2);
  await first.send([message], 1);
  message.fill(0);
  await first.send([Float32Array.of(3), Int32Array.of(4)], 1);
  const a = new Float32Array(2);
  const [b, c] = [new Float32Array(1), new Int32Array(1)];
  // Both wait for the other before either has sent.
  const crossing = [new Float32Array(1), new Float32Array(1)];
  await second.receive([a], 0);
  await second.receive([b, c], 0);
  const receiving = [first.receive([crossing[0]!], 1), second.receive([crossing[1]!], 0)];
  await first.send([Float32Array.of(5)], 1);
  await second.send([Float32Array.of(6)], 0);
  await Promise.all(receiving);
  expect([[...a], [...b], [...c], crossing.map((each) => each[0])]).toEqual([[1, 2], [3], [4], [6, 5]]);
});

test("groups over rows and columns of a mesh run side by side", async () => {
  const world = createLocalWorld(4, { timeoutSeconds: 30 });
  await everyRank(world, async (group, rank) => {
    const row = rank - (rank % 2);
    const [rows, columns] = await Promise.all([
      group.subgroup("tensor", [row, row + 1]),
      group.subgroup("data", [rank % 2, (rank % 2) + 2]),
    ]);
    expect(rows.members).toEqual([row, row + 1]);
    expect(columns.rank).toBe(row / 2);
    for (let round = 0; round < 50; round++) {
      const [a, b, c] = [1, 2, 3].map((factor) => Float32Array.of(10 ** rank * factor)) as [
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      await Promise.all([rows.allReduce([a]), columns.allReduce([b]), group.allReduce([c])]);
      expect(a[0]).toBe(10 ** row * 11);
      expect(b[0]).toBe(2 * 10 ** (rank % 2) * 101);
      expect(c[0]).toBe(3333);
    }
    // A group of a group names the ranks of the world.
    const alone = await columns.subgroup("alone", [columns.rank]);
    expect([alone.size, alone.members[0]]).toEqual([1, rank]);
  });
});

test("calls of one group queue in the order in which they were started", async () => {
  const world = createLocalWorld(2, { timeoutSeconds: 30 });
  await everyRank(world, async (group, rank) => {
    const tensors = Array.from({ length: 20 }, (_, index) => Float64Array.of(index + rank));
    await Promise.all(tensors.map((tensor) => group.allReduce([tensor])));
    expect(tensors.map((tensor) => tensor[0])).toEqual(tensors.map((_, index) => 2 * index + 1));
  });
});

test("traffic is counted as by bandwidth-optimal rings", async () => {
  const world = createLocalWorld(4, { timeoutSeconds: 30 });
  await everyRank(world, async (group) => {
    await group.allReduce([new Float32Array(1000)]);
    expect(group.traffic().bytes).toBe((2 * 3 * 4000) / 4);
    await group.allGather([new Float32Array(10)], [new Float32Array(40)]);
    expect(group.traffic().bytes).toBe(6000 + 3 * 40);
    await group.reduceScatter([new Float32Array(400)], [new Float32Array(100)]);
    expect(group.traffic().bytes).toBe(6120 + 1200);
    await group.barrier();
    expect(group.traffic().bytes).toBe(7320);
    expect(group.traffic().seconds).toBeGreaterThan(0);
  });
});
