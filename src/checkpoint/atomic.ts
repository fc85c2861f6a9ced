import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { systemErrorCode } from "../base/system_errors.ts";
import { asWriteError } from "./file_errors.ts";
import { createFile } from "./file_writer.ts";
import { isRunning, ownIdentity } from "./process_identity.ts";

// What a process leaves behind when it is killed is recognised by its name, which says whose it is:
// NAME.tmp-… is unfinished; NAME.old-… is what stood at NAME while a new folder was moved there.
const leftoverPattern = /^(.+)\.(tmp|old)-(\d+)-([0-9a-f]*)-[0-9a-f]{8}-(.+)$/;

/** A name beside `path` that belongs to this process and to nothing else. */
export function nameBeside(path: string, kind: "tmp" | "old" = "tmp"): string {
  const { pid, start, host } = ownIdentity();
  const unique = randomBytes(4).toString("hex");
  return `${resolve(path)}.${kind}-${pid}-${start}-${unique}-${host}`;
}

/**
 * Replaces the file at `path` with `data`, all at once: after a crash or a full disk there stands the
 * old file or the new one, never a part. Parent folders are made.
 * @throws RunError where the system refuses; the old file is then untouched.
 */
export async function writeFileAtomically(path: string, data: string | Uint8Array): Promise<void> {
  const bytes = typeof data === "string" ? Buffer.from(data, "utf8") : data;
  const folder = dirname(resolve(path));
  const temporary = nameBeside(path);
  try {
    await mkdir(folder, { recursive: true });
    await removeLeftovers(folder);
    await createFile(temporary, (writer) => writer.write(bytes));
    await rename(temporary, path);
    await syncFolder(folder);
  } catch (error) {
    await discard(temporary);
    throw asWriteError(error, path, bytes.length);
  }
}

/**
 * Replaces the folder at `path`, all at once, with one that `write` fills: it is given a temporary folder
 * beside it, which is brought to the disk and renamed when `write` is done. Where `write` throws, the
 * temporary folder is removed and what stood at `path` is untouched.
 * @throws RunError where the system refuses; what `write` throws otherwise.
 */
export async function writeFolderAtomically<Result>(
  path: string,
  write: (temporaryFolder: string) => Promise<Result>,
): Promise<Result> {
  const parent = dirname(resolve(path));
  const temporary = nameBeside(path);
  try {
    await mkdir(parent, { recursive: true });
    await removeLeftovers(parent);
    await mkdir(temporary);
    const result = await write(temporary);
    await syncTree(temporary);
    await moveIntoPlace(temporary, path);
    await syncFolder(parent);
    return result;
  } catch (error) {
    await discard(temporary);
    throw asWriteError(error, path);
  }
}

/** Removes a file or folder so that nobody ever sees a part of it under its own name. */
export async function removeAtomically(path: string): Promise<void> {
  const doomed = nameBeside(path);
  await rename(path, doomed);
  await rm(doomed, { recursive: true, force: true });
}

/**
 * Clears `folder` of what processes of this machine that no longer run left unfinished there, and puts a
 * folder back that was being replaced when its process was killed. Returns the names it dealt with.
 */
export async function removeLeftovers(folder: string): Promise<string[]> {
  const handled: string[] = [];
  const names = await readdir(folder);
  const present = new Set(names);
  for (const name of names) {
    const match = leftoverPattern.exec(name);
    if (match === null) continue;
    const [, target, kind, pid, start, host] = match;
    if (isRunning({ pid: Number(pid), host: host!, start: start! }) !== false) continue;
    if (kind === "old" && !present.has(target!))
      await renameIfPresent(join(folder, name), join(folder, target!));
    else await rm(join(folder, name), { recursive: true, force: true });
    handled.push(name);
  }
  return handled;
}

/** Brings a folder's list of names to the disk, where the system can. */
export async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(folder, "r");
  } catch (error) {
    // Windows does not open folders; it keeps their names itself.
    if (process.platform === "win32") return;
    throw error;
  }
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems refuse to sync a folder.
    const code = systemErrorCode(error);
    if (code !== "EINVAL" && code !== "EPERM" && code !== "ENOTSUP") throw error;
  } finally {
    await handle.close();
  }
}

async function moveIntoPlace(temporary: string, path: string): Promise<void> {
  const former = nameBeside(path, "old");
  const replaces = await renameIfPresent(path, former);
  try {
    await rename(temporary, path);
  } catch (error) {
    if (replaces) await rename(former, path);
    throw error;
  }
  if (replaces) await discard(former);
}

async function renameIfPresent(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return false;
    throw error;
  }
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncFile(path);
  }
  await syncFolder(folder);
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Removes what is not needed any more. Where even that fails nothing is lost: the next process to write
 * here clears it.
 */
export async function discard(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true }).catch(() => undefined);
}
