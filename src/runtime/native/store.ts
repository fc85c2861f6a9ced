import { formatBytes } from "../../base/bytes.ts";
import type { TensorData } from "../../base/dtype.ts";
import { ConfigError, RunError } from "../../base/errors.ts";
import { alignRegion, type Store, type StoreOptions, type StoreTraffic } from "../store.ts";
import type { Addon } from "./addon.ts";

/**
 * Opens a store in a folder: a file without a name, reserved in full.
 * @throws ConfigError (`bad_store_path`, `store_not_writable`) where the folder is missing or read-only; RunError
 * (`disk_full`, `file_too_large`, `store_failed`) where the system does not give the space.
 */
export function openNativeStore(
  addon: Addon,
  folder: string,
  bytes: number,
  { direct = true, requestBytes = 2 ** 20, queueDepth = 8, threads = 1 }: StoreOptions = {},
): Store {
  let id: number;
  try {
    id = addon.openStore(folder, bytes, direct, requestBytes, queueDepth, threads);
  } catch (error) {
    throw asStoreError(error, folder, bytes);
  }
  const translate = async (move: Promise<void>): Promise<void> =>
    await move.catch((error: unknown) => {
      throw asStoreError(error, folder);
    });
  return {
    folder,
    bytes: alignRegion(bytes),
    direct: addon.storeTraffic(id).direct,
    read: async (offset: number, into: TensorData) => await translate(addon.moveStore(id, 0, offset, into)),
    write: async (offset: number, from: TensorData) => await translate(addon.moveStore(id, 1, offset, from)),
    traffic: (): StoreTraffic => {
      const { readBytes, writtenBytes, readSeconds, writeSeconds } = addon.storeTraffic(id);
      return { readBytes, writtenBytes, readSeconds, writeSeconds };
    },
    drain: () => addon.drainStore(id),
    native: id,
    close: () => addon.closeStore(id),
  };
}

/** What to throw for an error of a store: what a person can act on where the system refused. */
export function asStoreError(error: unknown, folder?: string, neededBytes?: number): unknown {
  const code = error instanceof Error ? /^store (\w+): /.exec(error.message)?.[1] : undefined;
  if (code === undefined) return error;
  const details = {
    ...(folder === undefined ? {} : { where: folder }),
    received: (error as Error).message.replace(/^store \w+: /, ""),
    cause: error,
  };
  const room = neededBytes === undefined ? {} : { expected: `${formatBytes(neededBytes)} of free space` };
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return new ConfigError("bad_store_path", "the folder for states on disk does not exist", {
        ...details,
        hint: "make the folder, or set nvme_path to one that exists",
      });
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new ConfigError("store_not_writable", "the folder for states on disk cannot be written", {
        ...details,
        hint: "give this user the right to write there, or set nvme_path to another folder",
      });
    case "ENOSPC":
    case "EDQUOT":
      return new RunError("disk_full", "the disk is full", {
        ...details,
        ...room,
        hint: "free some space, or set nvme_path to a folder on another disk",
      });
    case "EFBIG":
      return new RunError("file_too_large", "a file is larger than the disk or this user may hold", {
        ...details,
        ...room,
        hint: "raise the limit (ulimit -f), or set nvme_path to a folder on another disk",
      });
    default:
      return new RunError("store_failed", "states on disk could not be read or written", {
        ...details,
        hint: "check the disk of nvme_path, then resume from the last checkpoint",
      });
  }
}
