import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";

/** Writes a file aside, flushes it to disk and renames it into place: readers see all of it or nothing. */
export async function writeFileAside(path: string, content: string | Uint8Array): Promise<void> {
  const aside = `${path}.tmp-${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(aside, "wx");
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(aside, path);
  } catch (cause) {
    await rm(aside, { force: true });
    throw cause;
  }
}

/** The message of whatever was thrown. */
export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
