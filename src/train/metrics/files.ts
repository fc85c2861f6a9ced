import { appendFileSync, closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { RunError } from "../../base/errors.ts";

/**
 * Does what writes to `path`.
 * @throws RunError naming the file where the system refuses (a full disk, no permission).
 */
export function writing<Result>(path: string, write: () => Result): Result {
  try {
    return write();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new RunError("write_failed", `cannot write ${path}`, {
      received: code === undefined ? message : `${code}: ${message}`,
      ...(code === "ENOSPC" ? { hint: "the disk is full: make room, then go on with --resume" } : {}),
      cause,
    });
  }
}

/**
 * Writes a file aside and moves it into place, so that a reader or a crash sees the old contents or the
 * new, never half of them.
 */
export function replaceFile(path: string, contents: string | Uint8Array): void {
  // Always the same name: what a killed run left is written over by the next.
  const aside = `${path}.tmp-unfinished`;
  writing(path, () => {
    try {
      const file = openSync(aside, "w");
      try {
        writeFileSync(file, contents);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(aside, path);
    } catch (failure) {
      rmSync(aside, { force: true });
      throw failure;
    }
  });
}

/** A file that only grows, by whole records. */
export interface AppendedFile {
  append(record: string | Uint8Array): void;
  /** Brings everything appended to the disk. */
  flush(): void;
  close(): void;
}

/** Opens a file to append to; `create` refuses one that is there. */
export function openForAppending(path: string, mode: "append" | "create"): AppendedFile {
  const file = writing(path, () => openSync(path, mode === "append" ? "a" : "ax"));
  return {
    append: (record) => writing(path, () => appendFileSync(file, record)),
    flush: () => writing(path, () => fsyncSync(file)),
    close: () => {
      writing(path, () => {
        try {
          fsyncSync(file);
        } finally {
          closeSync(file);
        }
      });
    },
  };
}
