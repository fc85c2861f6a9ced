import { type FileHandle, open } from "node:fs/promises";
import { crc32 } from "node:zlib";

/**
 * Bytes handed to the operating system in one call: large enough to be fast where the event loop comes late to each
 * next one because kernels keep every core, small enough that a checksum of one chunk holds it up for milliseconds.
 */
export const chunkBytes = 16 * 2 ** 20;

/** What a finished file holds: its length, and the CRC-32 of all of it. */
export type WrittenFile = {
  readonly bytes: number;
  readonly crc32: number;
};

/** The bytes under a typed array, without copying them. */
export function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Writes a new file from front to back in chunks, and its checksum along with it. */
export class FileWriter {
  readonly #handle: FileHandle;
  #bytes = 0;
  #crc32 = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** A writer of a file that must not exist yet. */
  static async create(path: string): Promise<FileWriter> {
    return new FileWriter(await open(path, "wx"));
  }

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Appends `data`, which is written from where it stands and must not change meanwhile. */
  async write(data: Uint8Array): Promise<void> {
    for (let start = 0; start < data.length; start += chunkBytes) {
      const chunk = data.subarray(start, start + chunkBytes);
      const writing = this.#writeChunk(chunk);
      // The checksum is computed here while the thread pool writes the same bytes.
      this.#crc32 = crc32(chunk, this.#crc32);
      await writing;
    }
  }

  /** Brings the file to the disk and closes it. */
  async finish(): Promise<WrittenFile> {
    await this.#handle.sync();
    await this.#handle.close();
    return { bytes: this.#bytes, crc32: this.#crc32 };
  }

  /** Closes the file as it is; does nothing after `finish`. */
  async abandon(): Promise<void> {
    await this.#handle.close();
  }

  async #writeChunk(chunk: Uint8Array): Promise<void> {
    let done = 0;
    while (done < chunk.length) {
      const { bytesWritten } = await this.#handle.write(chunk, done, chunk.length - done, null);
      done += bytesWritten;
      this.#bytes += bytesWritten;
    }
  }
}

/**
 * Creates `path`, lets `write` fill it, and brings it to the disk. Whatever `write` throws leaves the
 * unfinished file behind, closed, for the caller to remove.
 */
export async function createFile(
  path: string,
  write: (writer: FileWriter) => Promise<void>,
): Promise<WrittenFile> {
  const writer = await FileWriter.create(path);
  try {
    await write(writer);
    return await writer.finish();
  } finally {
    await writer.abandon();
  }
}
