import { formatBytes } from "../base/bytes.ts";
import { FileFormatError, RunError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";

/**
 * What to throw for an error that came while `path` was read: a FileFormatError where the operating
 * system refused, otherwise the error itself.
 */
export function asReadError(error: unknown, path: string): unknown {
  const code = systemErrorCode(error);
  if (code === undefined) return error;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new FileFormatError("missing_file", "a file does not exist", {
      where: path,
      hint: "check the path",
      cause: error,
    });
  }
  return new FileFormatError("unreadable_file", "a file cannot be read", {
    where: path,
    received: (error as Error).message,
    hint: code === "EACCES" || code === "EPERM" ? "give this user the right to read it" : "check the path",
    cause: error,
  });
}

/**
 * What to throw for an error that came while `path` was written aside: a RunError that says what to do
 * where the operating system refused, otherwise the error itself. The caller has removed what was
 * unfinished and has not touched what was there before.
 */
export function asWriteError(error: unknown, path: string, neededBytes?: number): unknown {
  const code = systemErrorCode(error);
  if (code === undefined) return error;
  const intact = "what was unfinished has been removed and everything saved earlier is intact";
  const details = { where: path, received: (error as Error).message, cause: error };
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return new RunError("disk_full", "the disk is full", {
        ...details,
        ...(neededBytes === undefined ? {} : { expected: `${formatBytes(neededBytes)} of free space` }),
        hint: `free some space or write to another disk, then run again; ${intact}`,
      });
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new RunError("not_writable", "a file or folder cannot be written", {
        ...details,
        hint: `give this user the right to write there, or choose another folder; ${intact}`,
      });
    case "EFBIG":
      return new RunError("file_too_large", "a file is larger than the disk or this user may hold", {
        ...details,
        ...(neededBytes === undefined ? {} : { expected: `room for a file of ${formatBytes(neededBytes)}` }),
        hint: `raise the limit (ulimit -f), write smaller shards, or choose another disk; ${intact}`,
      });
    default:
      return new RunError("write_failed", "a file or folder could not be written", {
        ...details,
        hint: `check that the path is a folder that can be written, then run again; ${intact}`,
      });
  }
}
