import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { FileFormatError, RunError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { messageOf } from "./files.ts";
import { openTokenShards, type ReadShardsOptions } from "./token_shard_reader.ts";
import { writeTokenShards } from "./token_shard_writer.ts";
import type { TokenisedDocument, TokenStore } from "./token_store.ts";

/** Where a cache lives and what it is a cache of. */
export interface TokenCacheOptions {
  /** The folder that holds caches, each in a folder of its own. */
  readonly directory: string;
  /** What the data is called; a newer cache of the same name replaces an older one. */
  readonly name: string;
  /** Everything that the tokens depend on: sources, tokenizer, fields. */
  readonly madeFrom: string;
  readonly vocabularySize: number;
  /** Tells that a cache could not be used and is made anew. */
  readonly onRebuild?: (reason: string) => void;
  /** How the shards are read. */
  readonly reading?: ReadShardsOptions;
  /** Tokens in a shard file (default 2^27). */
  readonly tokensPerShard?: number;
}

/** Half-made caches older than this were left by a process that was killed. */
const abandonedAfter = 24 * 3600 * 1000;

/**
 * The tokens of documents, from the cache where it holds them, else tokenised and put into the cache
 * first. A cache of other sources or another tokenizer does not match by name; a damaged one is made
 * anew. Several processes may do this at once: each writes aside, and the first to finish is used.
 * @throws RunError where the cache cannot be written (a full disk).
 */
export async function cachedTokens(
  options: TokenCacheOptions,
  documents: () => AsyncIterable<TokenisedDocument>,
): Promise<TokenStore> {
  const slot = shortHash(options.name);
  const folder = join(options.directory, `${slot}-${shortHash(options.madeFrom)}`);
  const found = await openIfSound(folder, options);
  if (found !== undefined) return found;
  const aside = join(options.directory, `${slot}.tmp-${randomBytes(6).toString("hex")}`);
  try {
    await mkdir(aside, { recursive: true });
    await writeTokenShards(aside, documents(), options);
    await replaceFolder(aside, folder, options);
  } catch (cause) {
    // What failed matters more than that its remains could not be removed.
    await rm(aside, { recursive: true, force: true }).catch(() => undefined);
    if (systemErrorCode(cause) === undefined) throw cause;
    throw new RunError("cache_write_failed", "cannot write the token cache", {
      where: options.directory,
      received: messageOf(cause),
      hint: "free some space, or set cache_dir to a folder that can be written",
      cause,
    });
  }
  await removeOutdated(options.directory, slot, folder);
  return openTokenShards(folder, options.madeFrom, options.reading);
}

async function openIfSound(folder: string, options: TokenCacheOptions): Promise<TokenStore | undefined> {
  try {
    return await openTokenShards(folder, options.madeFrom, options.reading);
  } catch (cause) {
    if (!(cause instanceof FileFormatError)) throw cause;
    if (cause.code === "missing_cache") return undefined;
    options.onRebuild?.(cause.message);
    // Removed now, before the long work, so that no other process finds it when that is done.
    await rm(folder, { recursive: true, force: true });
    return undefined;
  }
}

async function replaceFolder(aside: string, folder: string, options: TokenCacheOptions): Promise<void> {
  try {
    await rename(aside, folder);
  } catch (cause) {
    if (!["EEXIST", "ENOTEMPTY", "EPERM"].includes(systemErrorCode(cause) ?? "")) throw cause;
    // Another process was faster, or a cache without an index stands there.
    const theirs = await openIfSound(folder, { ...options, onRebuild: () => {} });
    if (theirs !== undefined) {
      await theirs.close();
      await rm(aside, { recursive: true, force: true });
      return;
    }
    await rm(folder, { recursive: true, force: true });
    await rename(aside, folder);
  }
}

async function removeOutdated(directory: string, slot: string, current: string): Promise<void> {
  for (const entry of await readdir(directory)) {
    const path = join(directory, entry);
    if (!entry.startsWith(slot) || path === current) continue;
    if (entry.startsWith(`${slot}-`)) {
      await rm(path, { recursive: true, force: true });
    } else if (entry.startsWith(`${slot}.tmp-`)) {
      const age = Date.now() - (await stat(path).catch(() => ({ mtimeMs: Date.now() }))).mtimeMs;
      if (age > abandonedAfter) await rm(path, { recursive: true, force: true });
    }
  }
}

function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}
