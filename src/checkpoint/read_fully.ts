import type { FileHandle } from "node:fs/promises";
import { FileFormatError } from "../base/errors.ts";

/** Bytes asked of the operating system in one call. */
const readChunkBytes = 32 * 2 ** 20;

/**
 * Fills `destination` from the bytes of a file that begin at `position`.
 * @param format opens the code of the error, such as "safetensors"
 * @throws FileFormatError where the file ends before that; what the operating system throws otherwise.
 */
export async function readFully(
  handle: FileHandle,
  destination: Uint8Array,
  position: number,
  file: { readonly path: string; readonly format: string },
): Promise<void> {
  let done = 0;
  while (done < destination.length) {
    const length = Math.min(readChunkBytes, destination.length - done);
    const { bytesRead } = await handle.read(destination, done, length, position + done);
    if (bytesRead === 0) {
      throw new FileFormatError(`${file.format}_truncated`, "a file became shorter while it was read", {
        where: file.path,
        expected: `${destination.length} bytes at ${position}`,
        received: `${done} bytes`,
        hint: "let no other program write this file, and copy or download it again",
      });
    }
    done += bytesRead;
  }
}
