import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ConfigError } from "../base/errors.ts";
import { acquireRunLock, type Holder, takeOver } from "./run_lock.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
  path = join(folder, "run.lock");
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** A program that takes the lock, says so, and then does `rest`. */
function program(rest: string): string[] {
  const source = `
    import { acquireRunLock } from ${JSON.stringify(new URL("./run_lock.ts", import.meta.url).href)};
    const lock = await acquireRunLock(process.argv[1]);
    process.stdout.write("held");
    ${rest}`;
  return ["--input-type=module", "-e", source, folder];
}

async function failureOf(promise: Promise<unknown>): Promise<ConfigError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ConfigError);
  return error as ConfigError;
}

test("a second run in the output_dir is refused and told who holds it, until the first ends", async () => {
  const directory = join(folder, "runs/new");
  const lock = await acquireRunLock(directory);
  const error = await failureOf(acquireRunLock(directory));
  expect(error.code).toBe("output_dir_in_use");
  expect(error.message).toContain(`where:    ${directory}`);
  expect(error.message).toMatch(new RegExp(`received: process ${process.pid} on \\S+, since 20\\d\\d-.*Z\n`));
  lock.release();
  lock.release();
  expect(existsSync(join(directory, "run.lock"))).toBe(false);
  (await acquireRunLock(directory)).release();
});

test("another process that holds the lock is named; killed, it holds it no more", async () => {
  const child = spawn(process.execPath, program("setInterval(() => {}, 1000);"), {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  const error = await failureOf(acquireRunLock(folder));
  expect(error.message).toContain(`process ${child.pid} on ${hostname()}`);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(existsSync(path)).toBe(true);
  const lock = await acquireRunLock(folder);
  expect(JSON.parse(await readFile(path, "utf8"))).toMatchObject({ pid: process.pid });
  lock.release();
});

test.each([
  ["ends", ""],
  ["exits", "process.exit(0);"],
  ["throws", "process.stderr.write = () => true; throw new Error('failed');"],
])("a process that %s gives up its lock", (_, rest) => {
  expect(spawnSync(process.execPath, program(rest), { encoding: "utf8" }).stdout).toBe("held");
  expect(existsSync(path)).toBe(false);
});

test("of many processes that find one stale lock at the same time, exactly one takes it over", async () => {
  for (let round = 0; round < 2; round++) {
    spawnSync(process.execPath, program("process.kill(process.pid, 'SIGKILL');"));
    expect(existsSync(path)).toBe(true);
    // They try within the same millisecond where the machine lets them, and stay until all have tried.
    const source = `
      import { acquireRunLock } from ${JSON.stringify(new URL("./run_lock.ts", import.meta.url).href)};
      while (Date.now() < ${Date.now() + 700});
      const outcome = await acquireRunLock(process.argv[1]).then(() => "held", (error) => error.code);
      process.stdout.write(outcome);
      setInterval(() => {}, 1000);`;
    const children = Array.from({ length: 4 }, () =>
      spawn(process.execPath, ["--input-type=module", "-e", source, folder], {
        stdio: ["ignore", "pipe", "inherit"],
      }),
    );
    const outcomes = await Promise.all(
      children.map(async (child) => String((await once(child.stdout, "data"))[0])),
    );
    for (const child of children) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    expect(outcomes.toSorted()).toEqual(["held", ...new Array<string>(3).fill("output_dir_in_use")]);
  }
});

test("while one process takes a stale lock over, another waits, and then finds the new holder", async () => {
  const lock = await acquireRunLock(folder);
  const fresh = await readFile(path, "utf8");
  const stale = { ...(JSON.parse(fresh) as Holder), pid: 2 ** 22 + 1, token: "stale" };
  await writeFile(path, JSON.stringify(stale));
  await writeFile(`${path}.takeover`, "");
  const second = failureOf(acquireRunLock(folder));
  await sleep(150);
  expect(JSON.parse(await readFile(path, "utf8"))).toEqual(stale);
  await writeFile(path, fresh);
  await rm(`${path}.takeover`);
  expect((await second).message).toContain(`process ${process.pid} on`);
  // One that read the stale lock just before leaves the fresh one alone.
  await takeOver(path, stale);
  expect(await readFile(path, "utf8")).toBe(fresh);
  expect(existsSync(`${path}.takeover`)).toBe(false);
  lock.release();
});

async function holderOf(changes: Record<string, unknown>): Promise<void> {
  const lock = await acquireRunLock(folder);
  const own = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  lock.release();
  await writeFile(path, JSON.stringify({ ...own, ...changes }));
}

test("a lock of another machine is never taken over; the error says how to remove it", async () => {
  await holderOf({ host: "node-17", pid: 4_000_000 });
  const error = await failureOf(acquireRunLock(folder));
  expect(error.message).toMatch(/process 4000000 on node-17/);
  expect(error.message).toContain(`delete ${path}`);
});

test("a process that was given the id of the one that held the lock does not hold it", async ({ skip }) => {
  skip(!existsSync("/proc/self/stat"), "this system does not tell when a process started");
  await holderOf({ start: "0123456799" });
  (await acquireRunLock(folder)).release();
  expect(existsSync(path)).toBe(false);
});

test("a lock that was never written is taken over after a while", async () => {
  await writeFile(path, "");
  const longAgo = new Date(Date.now() - 60_000);
  await utimes(path, longAgo, longAgo);
  await writeFile(`${path}.takeover`, "");
  await utimes(`${path}.takeover`, longAgo, longAgo);
  (await acquireRunLock(folder)).release();
  expect(existsSync(path)).toBe(false);
  expect(existsSync(`${path}.takeover`)).toBe(false);
});

test("a lock that was replaced by another run is not removed by its former holder", async () => {
  const lock = await acquireRunLock(folder);
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace(/"token":"[0-9a-f]+"/, '"token":"other"'));
  lock.release();
  expect(existsSync(path)).toBe(true);
});
