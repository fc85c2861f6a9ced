import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { createLocalWorld } from "../../src/backends.ts";
import { CommunicationError, ShapeError } from "../../src/base/errors.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";

/** Ranks that stall, leave, give up or call something else: all of them end, with an error that says who and what. */

const floats = (length: number) => new Float32Array(length);

/** One call of each kind, of a group of three. */
const calls: Record<string, (group: ProcessGroup) => Promise<unknown>> = {
  all_reduce: (group) => group.allReduce([floats(6)], { label: "gradients" }),
  reduce_scatter: (group) => group.reduceScatter([floats(6)], [floats(2)], { label: "gradients" }),
  all_gather: (group) => group.allGather([floats(2)], [floats(6)], { label: "weights" }),
  all_to_all: (group) => group.allToAll([floats(6)], [floats(6)], { label: "heads" }),
  all_to_all_variable: (group) => group.allToAllVariable(floats(3), [1, 1, 1], floats(3), [1, 1, 1]),
  broadcast: (group) => group.broadcast([floats(6)], 0),
  barrier: (group) => group.barrier(),
  exchange: (group) => group.exchange(Uint8Array.of(1, 2, 3)),
};
const kinds = Object.keys(calls);

/** The error of each call; fails where one is fulfilled. */
async function failures(pending: readonly Promise<unknown>[]): Promise<CommunicationError[]> {
  const settled = await Promise.allSettled(pending);
  return settled.map((each) => {
    if (each.status === "fulfilled") throw new Error("a call that had to fail did not");
    expect(each.reason).toBeInstanceOf(CommunicationError);
    return each.reason as CommunicationError;
  });
}

describe.each(kinds)("%s", (kind) => {
  const call = calls[kind]!;

  test("a rank that does not come", async () => {
    const world = createLocalWorld(3, { timeoutSeconds: 0.2 });
    for (const group of world) group.setMoment("step 12");
    await Promise.all(world.map(call));
    const errors = await failures([call(world[0]!), call(world[2]!)]);
    for (const error of errors) {
      expect(error.code).toBe("collective_timeout");
      expect(error.message).toMatch(new RegExp(`^rank 1 did not come to ${kind}.* within 0.2 s\n`));
      expect(error.message).toContain(
        `where:    group "world" (ranks 0, 1 and 2), call 2, step 12\n  received: rank 1 (step 12): was last in ${kind}`,
      );
    }
    // Whoever comes later is told at once, and so is every later call.
    expect((await failures([call(world[1]!), world[0]!.barrier()]))[0]!.message).toBe(errors[0]!.message);
  });

  test("a rank that calls something else", async () => {
    const world = createLocalWorld(3, { timeoutSeconds: 20 });
    world[1]!.setMoment("step 7");
    const other = calls[kind === "all_gather" ? "broadcast" : "all_gather"]!;
    const errors = await failures([call(world[0]!), other(world[1]!), call(world[2]!)]);
    for (const error of errors) {
      expect(error.code).toBe("collective_mismatch");
      expect(error.message).toMatch(/^ranks called different collectives\n/);
      expect(error.message).toMatch(new RegExp(`ranks 0 and 2: ${kind}`));
      expect(error.message).toMatch(/rank 1 \(step 7\): (all_gather|broadcast) /);
    }
  });

  test("a rank that gives up", async () => {
    const world = createLocalWorld(3, { timeoutSeconds: 20 });
    const pending = [call(world[0]!), call(world[2]!)];
    world[1]!.setMoment("step 3");
    world[1]!.abort("the data set ended");
    for (const error of await failures(pending)) {
      expect(error.code).toBe("rank_lost");
      expect(error.message).toBe(
        'rank 1 gave up: the data set ended\n  where:    group "world" (ranks 0, 1 and 2), step 3',
      );
    }
  });

  test("a rank that closes its end", async () => {
    const world = createLocalWorld(3, { timeoutSeconds: 20 });
    const pending = [call(world[0]!), call(world[2]!)];
    world[1]!.close();
    for (const error of await failures(pending)) {
      expect(error.code).toBe("rank_lost");
      expect(error.message).toMatch(new RegExp(`^rank 1 closed the group before ${kind}`));
    }
  });
});

test("the same operation on other shapes, dtypes or labels is no match", async () => {
  const pairs: [
    (group: ProcessGroup) => Promise<unknown>,
    (group: ProcessGroup) => Promise<unknown>,
    string[],
  ][] = [
    [
      (group) => group.allReduce([floats(4), floats(2)], { label: "gradients of a" }),
      (group) => group.allReduce([floats(6)], { label: "gradients of a" }),
      [
        'rank 0: all_reduce "gradients of a" of f32[4], f32[2]',
        'rank 1: all_reduce "gradients of a" of f32[6]',
      ],
    ],
    [
      (group) => group.allReduce([floats(4)]),
      (group) => group.allReduce([new Int32Array(4)]),
      ["rank 0: all_reduce of f32[4]", "rank 1: all_reduce of i32[4]"],
    ],
    [
      (group) => group.allReduce([floats(4)], { label: "a" }),
      (group) => group.allReduce([floats(4)], { label: "b" }),
      ['rank 0: all_reduce "a" of f32[4]', 'rank 1: all_reduce "b" of f32[4]'],
    ],
    [
      (group) => group.broadcast([floats(4)], 0),
      (group) => group.broadcast([floats(4)], 1),
      ["rank 0: broadcast of f32[4] from rank 0", "rank 1: broadcast of f32[4] from rank 1"],
    ],
    [
      (group) => group.allToAllVariable(floats(4), [1, 3], floats(4), [1, 2]),
      (group) => group.allToAllVariable(floats(4), [1, 3], floats(6), [3, 3]),
      ["rank 1: sends 1 elements to rank 0", "rank 0: expects 2 of rank 1"],
    ],
    [
      (group) => group.send([floats(4)], 1, { label: "activations" }),
      (group) => group.receive([floats(5)], 0),
      ['rank 0: send "activations" of f32[4]', "rank 1: receive of f32[5]"],
    ],
  ];
  for (const [first, second, texts] of pairs) {
    const world = createLocalWorld(2, { timeoutSeconds: 20 });
    const settled = await Promise.allSettled([first(world[0]!), second(world[1]!)]);
    const reason = settled.find((each) => each.status === "rejected")?.reason as CommunicationError;
    expect(reason.code).toBe("collective_mismatch");
    for (const text of texts) expect(reason.message).toContain(text);
  }
});

test("a receiver names the sender that does not send, and notices when it leaves", async () => {
  const late = createLocalWorld(2, { timeoutSeconds: 0.1 });
  const [timeout] = await failures([late[1]!.receive([floats(3)], 0, { label: "activations" })]);
  expect(timeout!.code).toBe("collective_timeout");
  expect(timeout!.message).toContain('rank 0 did not come to receive "activations" of f32[3] within 0.1 s');
  const left = createLocalWorld(2, { timeoutSeconds: 20 });
  await left[0]!.send([floats(1)], 1);
  const pending = [left[1]!.receive([floats(1)], 0), left[1]!.receive([floats(1)], 0)];
  left[0]!.close();
  // What was sent before is still delivered.
  await pending[0];
  const [lost] = await failures([pending[1]!]);
  expect(lost!.message).toMatch(/^rank 0 closed the group before receive of f32\[1\]/);
});

test("a failure in a part of the world ends all of it, and names whom everyone waits for", async () => {
  const world = createLocalWorld(4, { timeoutSeconds: 0.3 });
  const tensor = await Promise.all([
    world[0]!.subgroup("tensor", [0, 1]),
    world[1]!.subgroup("tensor", [0, 1]),
  ]);
  const data = await Promise.all([world[1]!.subgroup("data", [1, 3]), world[3]!.subgroup("data", [1, 3])]);
  // Rank 0 waits for 1, which waits for 3, which does nothing.
  const pending = [
    tensor[0].barrier(),
    data[0].allReduce([floats(2)], { label: "norm" }),
    world[2]!.barrier(),
  ];
  const errors = await failures(pending);
  expect(new Set(errors.map(({ message }) => message)).size).toBe(1);
  expect(errors[0]!.message).toMatch(
    /rank 3: (has called nothing|is in no collective)|rank 3 did not come to/,
  );
  expect((await failures([tensor[1].barrier(), data[1].barrier()])).map(({ code }) => code)).toEqual([
    "collective_timeout",
    "collective_timeout",
  ]);
});

test("who is waited for, and waits itself, is told with what it waits for", async () => {
  const world = createLocalWorld(3, { timeoutSeconds: 0.3 });
  const pair = await world[1]!.subgroup("tensor", [1, 2]);
  const waiting = world[0]!.barrier();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const [first] = await failures([waiting, pair.allReduce([floats(2)], { label: "norm" })]);
  expect(first!.message).toContain("ranks 1 and 2 did not come to barrier");
  expect(first!.message).toContain(
    'rank 1: waits for rank 2 in all_reduce "norm" of f32[2] of group "tensor"',
  );
  expect(first!.message).toContain("rank 2: has called nothing in this group");
});

test("calls that cannot be are refused before anyone waits", async () => {
  const world = createLocalWorld(2, { timeoutSeconds: 20 });
  const group = world[0]!;
  const wrong: [Promise<unknown>, string][] = [
    [group.allReduce([new Uint8Array(3)]), "cannot be summed"],
    [group.reduceScatter([floats(3)], [floats(1)]), "does not divide into 2 equal parts"],
    [group.allGather([floats(3)], [floats(5)]), "Float32Array of 6 elements"],
    [group.allGather([floats(3)], [new Float64Array(6)]), "Float64Array of 6"],
    [group.allToAll([floats(4)], []), "one output for each input"],
    [group.broadcast([floats(4)], 2), "no such rank"],
    [group.send([floats(4)], -1), "no such rank"],
    [group.allToAllVariable(floats(4), [1, 4], floats(4), [1, 3]), "more elements are sent"],
    [group.allToAllVariable(floats(4), [1], floats(4), [1, 3]), "a count for each rank"],
  ];
  for (const [pending, text] of wrong) {
    await expect(pending).rejects.toThrow(ShapeError);
    await expect(pending).rejects.toThrow(text);
  }
  await expect(group.subgroup("other", [1])).rejects.toThrow('rank 0 is no member of group "other"');
  expect(() => createLocalWorld(0, { timeoutSeconds: 1 })).toThrow("number of ranks");
  expect(() => createLocalWorld(2, { timeoutSeconds: -1 })).toThrow("no timeout");
  expect(() =>
    createLocalWorld(2, { timeoutSeconds: 1, links: { data: { bandwidth: 0, latency: 0 } } }),
  ).toThrow('axis "data"');
  group.close();
  await expect(group.barrier()).rejects.toThrow('closed group "world"');
});

test("a process can end while its ranks wait for one another", () => {
  const script = `
    import { createLocalWorld } from "./src/backends.ts";
    const world = createLocalWorld(2, { timeoutSeconds: 0 });
    world[0].barrier().catch(() => undefined);
    setTimeout(() => process.exit(7), 100);
  `;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 60_000,
  });
  expect([status, stderr]).toEqual([7, ""]);
});

test("a process stays for what is under way, and ends by itself after it", () => {
  const script = `
    import { createLocalWorld } from "./src/backends.ts";
    const world = createLocalWorld(2, { timeoutSeconds: 1 });
    world[0].barrier().catch((error) => console.log(error.code, world.length));
  `;
  const { status, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 60_000,
  });
  expect([status, stdout]).toEqual([0, "collective_timeout 2\n"]);
});
