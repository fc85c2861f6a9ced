import { randomBytes } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { asReadError, asWriteError } from "./file_errors.ts";
import { isJsonObject } from "./json.ts";
import { isRunning, ownIdentity, type ProcessIdentity } from "./process_identity.ts";

/** The right to write into one `output_dir`. */
export interface RunLock {
  /** The lock's file. */
  readonly path: string;
  /** Gives the right up; does so by itself when the process exits. */
  release(): void;
  [Symbol.dispose](): void;
}

/** What a lock's file says of the run that holds it. */
export interface Holder extends ProcessIdentity {
  readonly since: string;
  /** Tells one lock from the next, also of one process. */
  readonly token: string;
}

/** A lock whose writer was stopped between making its file and writing it is given up after this time. */
const unwrittenMilliseconds = 2000;
/** Longer than any takeover lasts; so is one that was cut short. */
const takeoverMilliseconds = 10_000;

/**
 * Takes the lock of `outputDirectory`, which is made where it is absent. A lock of a process that no longer
 * runs on this machine is taken over.
 * @throws ConfigError `output_dir_in_use` that says which process holds it, also where that cannot be checked
 * because it is on another machine; RunError where the lock cannot be written.
 */
export async function acquireRunLock(outputDirectory: string): Promise<RunLock> {
  const path = join(outputDirectory, "run.lock");
  const holder: Holder = {
    ...ownIdentity(),
    since: new Date().toISOString(),
    token: randomBytes(8).toString("hex"),
  };
  try {
    mkdirSync(outputDirectory, { recursive: true });
    while (!createExclusively(path, `${JSON.stringify(holder)}\n`)) {
      const current = readHolder(path);
      if (current === "absent") continue;
      if (current === "unwritten") {
        if (ageMilliseconds(path) <= unwrittenMilliseconds) await sleep(50);
        else await takeOver(path, current);
      } else if (isRunning(current) === false) await takeOver(path, current);
      else throw inUse(outputDirectory, path, current);
    }
  } catch (error) {
    throw asWriteError(error, path);
  }
  const release = () => {
    process.off("exit", release);
    const current = readHolder(path);
    if (typeof current === "object" && current.token === holder.token) rmSync(path, { force: true });
  };
  process.on("exit", release);
  return { path, release, [Symbol.dispose]: release };
}

function inUse(outputDirectory: string, path: string, holder: Holder): ConfigError {
  const elsewhere = isRunning(holder) === "unknown";
  return new ConfigError("output_dir_in_use", "another run is writing into this output_dir", {
    where: outputDirectory,
    expected: "one run in an output_dir at a time",
    received: `process ${holder.pid} on ${holder.host}, since ${holder.since}`,
    hint: elsewhere
      ? `wait for it, or set another output_dir; if that run is gone (it was on another machine), delete ${path}`
      : "wait for it or stop it, or set another output_dir",
  });
}

/** Creates a file with its whole content; false where it is there already. */
function createExclusively(path: string, content: string): boolean {
  let descriptor: number;
  try {
    descriptor = openSync(path, "wx");
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    throw error;
  }
  try {
    writeSync(descriptor, content);
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(descriptor);
  }
  return true;
}

function readHolder(path: string): Holder | "absent" | "unwritten" {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return "absent";
    throw asReadError(error, path);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (isHolder(value)) return value;
  } catch {
    // Not JSON: as good as unwritten.
  }
  return "unwritten";
}

function isHolder(value: unknown): value is Holder {
  if (!isJsonObject(value)) return false;
  const { pid, host, start, since, token } = value;
  return typeof pid === "number" && [host, start, since, token].every((item) => typeof item === "string");
}

function ageMilliseconds(path: string): number {
  const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() };
  return Date.now() - mtimeMs;
}

/**
 * Removes the lock at `path` if it is still the `stale` one that was found there. Two processes may find
 * the same one: only the one that makes the takeover file may remove it, and it looks again, so that
 * nobody removes the other's fresh lock.
 */
export async function takeOver(path: string, stale: Holder | "unwritten"): Promise<void> {
  const guard = `${path}.takeover`;
  if (!createExclusively(guard, "")) {
    if (ageMilliseconds(guard) > takeoverMilliseconds) rmSync(guard, { force: true });
    else await sleep(50);
    return;
  }
  try {
    const current = readHolder(path);
    const same =
      typeof current === "object" && typeof stale === "object"
        ? current.token === stale.token
        : current === stale;
    if (same) rmSync(path, { force: true });
  } finally {
    rmSync(guard, { force: true });
  }
}
