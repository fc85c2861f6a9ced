import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError, InternalError } from "../base/errors.ts";
import { configDifferences, isJsonObject, type JsonObject, showSetting } from "../checkpoint/index.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import type { Rank } from "./rank.ts";

/**
 * The world of the ranks that must agree on something. Every function here is a collective of it; a run without
 * ranks has none, and agrees with itself.
 */
type World = ProcessGroup | undefined;

/**
 * Checks that every rank was started for the same run: the same config, data and checkpoint to resume from.
 * @throws ConfigError on every rank, naming the keys, the ranks and their values.
 */
export async function requireSameRun(world: World, about: JsonObject): Promise<void> {
  if (world === undefined) return;
  const received = await world.exchange(Buffer.from(JSON.stringify(about)));
  const [first, ...others] = received.map((bytes) => parse(bytes));
  const lines = others.flatMap((other, index) =>
    configDifferences(first!, other).map(
      ({ path, saved, current }) =>
        `    ${path}: ${showSetting(saved)} on rank 0, ${showSetting(current)} on rank ${index + 1}`,
    ),
  );
  if (lines.length === 0) return;
  const shown = lines.length > shownDifferences ? [...lines.slice(0, shownDifferences), "    ..."] : lines;
  throw new ConfigError(
    "ranks_disagree",
    ["the ranks were started with different configs", ...shown].join("\n"),
    { hint: "start every rank with the same config, overrides and files" },
  );
}

const shownDifferences = 20;

function parse(bytes: Uint8Array): JsonObject {
  const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
  if (!isJsonObject(value)) throw new InternalError("a rank sent no description of its run");
  return value;
}

/** Whether it is so on any rank. */
export async function onAnyRank(world: World, flag: boolean): Promise<boolean> {
  if (world === undefined) return flag;
  const flags = await world.exchange(Uint8Array.of(flag ? 1 : 0));
  return flags.some((bytes) => bytes[0] === 1);
}

/**
 * The sum of each value over the ranks of the world that count, added in the order of ranks in float64: every rank
 * gets the same bits. A collective.
 */
export async function sumOverRanks(
  rank: Rank | undefined,
  terms: readonly {
    readonly value: number;
    /** Whether this rank's term counts. */
    readonly counts: boolean;
  }[],
): Promise<number[]> {
  const own = Float64Array.from(terms, ({ value, counts }) => (counts ? value : 0));
  if (rank === undefined || rank.world.size === 1) return [...own];
  const parts = await rank.world.exchange(new Uint8Array(own.buffer));
  const sums = new Float64Array(own.length);
  for (const bytes of parts) {
    // A copy, since the bytes may lie anywhere.
    const term = new Float64Array(bytes.slice().buffer);
    for (let index = 0; index < sums.length; index++) sums[index]! += term[index]!;
  }
  return [...sums];
}

/** How often rank 0 tells those who wait for it that it is still at work. Seconds. */
const secondsBetweenSigns = 0.2;

/**
 * Does on rank 0 alone what takes any time, and lets the others wait for it without running into the timeout of
 * collectives, as long as rank 0 lives. What fails there must end the world (`abort`), so that nobody waits on.
 * @returns what `work` gave on rank 0, undefined elsewhere.
 */
export async function onRankZero<T>(world: World, work: () => Promise<T>): Promise<T | undefined> {
  if (world === undefined) return await work();
  if (world.rank !== 0) {
    while (!(await onAnyRank(world, false)));
    return undefined;
  }
  const controller = new AbortController();
  const done = work().finally(() => controller.abort());
  // Looked at below, after the last sign of life.
  done.catch(() => {});
  while (!controller.signal.aborted) {
    await sleep(secondsBetweenSigns * 1000, undefined, { signal: controller.signal }).catch(() => {});
    if (!controller.signal.aborted) await onAnyRank(world, false);
  }
  const result = await done;
  await onAnyRank(world, true);
  return result;
}
