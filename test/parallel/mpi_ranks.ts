/**
 * One rank of the tests under mpirun: `node mpi_ranks.ts SCENARIO TIMEOUT_SECONDS`. Prints one line of JSON, the rank
 * and what it found, and exits with 0 unless it finds itself where it may not be.
 */
import { createMpiWorld } from "../../src/backends.ts";
import { CommunicationError } from "../../src/base/errors.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { checkCollectives, firstDifference, operand, orderedSum } from "./collective_suite.ts";

const [scenario, timeout] = process.argv.slice(2) as [string, string];
const world = createMpiWorld({ timeoutSeconds: Number(timeout) });
if (world === undefined) throw new Error("this is to be started by mpirun");
const ranks = world.members;

const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const floats = (length: number) => new Float32Array(length);

/** Every collective over all and over parts, messages of all lengths; what was wrong. */
async function collectives(group: ProcessGroup): Promise<string[]> {
  const wrong: string[] = [];
  const half = ranks.filter((rank) => rank % 2 === group.rank % 2);
  const part = await group.subgroup("data", half);
  // Side by side, in groups of their own.
  const both = await Promise.all([checkCollectives(part, 4), checkCollectives(group, 5)]);
  wrong.push(...both.flat());
  // Several passes, a long message in pieces, and tensors that do not divide.
  const lengths = [8_388_737, 3, 0];
  const inputs = ranks.map((rank) => lengths.map((length) => operand("f32", length, rank + length)));
  const own = inputs[group.rank]!.map((tensor) => tensor.slice());
  await group.allReduce(own);
  own.forEach((tensor, index) => {
    const expected = orderedSum(
      "f32",
      inputs.map((bucket) => bucket[index]!),
    );
    const at = firstDifference(tensor, expected);
    if (at >= 0) wrong.push(`all_reduce of ${lengths[index]}: element ${at}`);
  });
  const sizes = ranks.map((to) => 3 * group.rank + to);
  const from = ranks.map((rank) => 3 * rank + group.rank);
  const received = new Int32Array(from.reduce((sum, size) => sum + size, 0));
  const sent = Int32Array.from(
    sizes.flatMap((size, to) => Array.from({ length: size }, () => group.rank * 9 + to)),
  );
  await group.allToAllVariable(sent, sizes, received, from);
  const wanted = from.flatMap((size, rank) => Array.from({ length: size }, () => rank * 9 + group.rank));
  if (`${wanted}` !== `${received}`) wrong.push(`all_to_all_variable: ${received}, not ${wanted}`);
  const tensor = Float64Array.of(group.rank);
  await group.broadcast([tensor], group.size - 1);
  if (tensor[0] !== group.size - 1) wrong.push(`broadcast gave ${tensor[0]}`);
  const texts = await group.exchange(new TextEncoder().encode("r".repeat(group.rank)));
  if (texts.some((bytes, rank) => bytes.length !== rank)) wrong.push("exchange");
  // A message that needs the sender's help, while the sender waits for something else.
  const next = (group.rank + 1) % group.size;
  const before = (group.rank + group.size - 1) % group.size;
  const message = operand("f32", 600_000, group.rank);
  await group.send([message, Int32Array.of(group.rank)], next, { label: "activations" });
  const [data, label] = [floats(600_000), new Int32Array(1)];
  await group.receive([data, label], before);
  if (label[0] !== before || firstDifference(data, operand("f32", 600_000, before)) >= 0) {
    wrong.push("send and receive");
  }
  await group.barrier();
  return wrong;
}

/** The error that a call of this rank ends with. */
async function failure(call: () => Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await call();
  } catch (error) {
    if (error instanceof CommunicationError) return { code: error.code, message: error.message };
    throw error;
  }
  return { code: "none", message: "" };
}

const scenarios: Record<string, (group: ProcessGroup) => Promise<unknown>> = {
  collectives,
  mismatch: (group) =>
    failure(() =>
      group.rank === 1
        ? group.allGather([floats(2)], [floats(2 * group.size)], { label: "weights" })
        : group.allReduce([floats(8)], { label: "gradients" }),
    ),
  counts: (group) => {
    // Rank 1 expects more of rank 0 than it sends.
    const zeros = ranks.map(() => 0);
    const expects = zeros.with(0, group.rank === 1 ? 2 : 1);
    const sends = group.rank === 0 ? ranks.map(() => 1) : zeros;
    return failure(async () => {
      await group.allToAllVariable(floats(4), sends, floats(4), expects);
      // Only rank 1 can know; the others hear of it.
      await group.barrier();
    });
  },
  stall: async (group) => {
    group.setMoment("step 4");
    if (group.rank === 1) await sleep(Number(timeout) + 1);
    return failure(() => group.allReduce([floats(8)], { label: "gradients" }));
  },
  abort: async (group) => {
    if (group.rank !== 1) return await failure(() => group.barrier());
    await sleep(0.2);
    group.abort("the data set ended");
    return await failure(() => group.barrier());
  },
  leave: async (group) => {
    if (group.rank !== 1) return await failure(() => group.barrier());
    group.close();
    return { code: "none", message: "" };
  },
  network: async (group) => {
    const wrong = await checkCollectives(group, 6);
    await group.barrier();
    const started = performance.now();
    const tensor = floats(1_000_000).fill(1);
    await group.allReduce([tensor]);
    const seconds = (performance.now() - started) / 1000;
    if (tensor.some((value) => value !== group.size)) wrong.push("all_reduce of 4 MB");
    return { wrong, seconds };
  },
  kill: async (group) => {
    await group.barrier();
    if (group.rank === 1) process.kill(process.pid, "SIGKILL");
    return await failure(() => group.barrier());
  },
  vanish: async (group) => {
    // One process ends early, in order, while the others wait for it.
    if (group.rank !== 1) return await failure(() => group.barrier());
    return { code: "none", message: "" };
  },
};

world.setMoment("step 1");
const found = await scenarios[scenario]!(world);
console.log(JSON.stringify({ rank: world.rank, found }));
