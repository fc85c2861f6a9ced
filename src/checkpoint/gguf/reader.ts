import { type FileHandle, open } from "node:fs/promises";
import { FileFormatError, InternalError } from "../../base/errors.ts";
import { nearest } from "../../base/suggest.ts";
import { asReadError } from "../file_errors.ts";
import { readFully } from "../read_fully.ts";
import { Cursor, NeedsMore } from "./cursor.ts";
import { type GgufTensor, HeaderParser, whereIs } from "./header.ts";
import { Metadata } from "./metadata.ts";

/** What is read first: enough for the header of a model without a tokenizer. */
const firstBytes = 256 * 1024;

/**
 * Opens a GGUF file (version 2 or 3) and checks its header; no tensor is read yet. The header is read once, in
 * pieces that double.
 * @throws FileFormatError naming the file, and the key or tensor that is at fault.
 */
export async function openGguf(path: string): Promise<GgufFile> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    throw asReadError(error, path);
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) {
      throw new FileFormatError("gguf_magic", "a GGUF model is one file", {
        where: path,
        received: stat.isDirectory() ? "a folder" : "something else than a file",
      });
    }
    return await parse(handle, stat.size, path);
  } catch (error) {
    await handle.close();
    throw asReadError(error, path);
  }
}

async function parse(handle: FileHandle, fileBytes: number, path: string): Promise<GgufFile> {
  const file = { path, format: "gguf" };
  let buffer: Buffer = Buffer.alloc(Math.min(firstBytes, fileBytes));
  await readFully(handle, buffer, 0, file);
  const cursor = new Cursor(path, fileBytes, buffer);
  const parser = new HeaderParser(path, cursor);
  for (let done = false; !done; ) {
    try {
      done = parser.step();
    } catch (error) {
      if (!(error instanceof NeedsMore)) throw error;
      const larger = Buffer.alloc(Math.min(fileBytes, Math.max(error.bytes, buffer.length * 2)));
      buffer.copy(larger);
      await readFully(handle, larger.subarray(buffer.length), buffer.length, file);
      buffer = larger;
      cursor.extend(buffer);
    }
  }
  return new GgufFile(handle, path, {
    version: parser.version,
    metadata: new Metadata(parser.values, path),
    tensors: parser.tensors(fileBytes),
  });
}

/** An open GGUF file. Reads may run at the same time. */
export class GgufFile {
  readonly path: string;
  readonly version: number;
  readonly metadata: Metadata;
  /** Every tensor, in the file's order. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #handle: FileHandle;

  constructor(
    handle: FileHandle,
    path: string,
    header: {
      readonly version: number;
      readonly metadata: Metadata;
      readonly tensors: ReadonlyMap<string, GgufTensor>;
    },
  ) {
    this.#handle = handle;
    this.path = path;
    this.version = header.version;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
  }

  /** A tensor by name. @throws FileFormatError with the nearest name where there is none. */
  tensor(name: string): GgufTensor {
    const tensor = this.tensors.get(name);
    if (tensor !== undefined) return tensor;
    const similar = nearest(name, this.tensors.keys());
    throw new FileFormatError("missing_tensor", "a GGUF file does not hold a tensor that is needed", {
      where: whereIs(name, this.path),
      received: `${this.tensors.size} tensors of other names`,
      ...(similar === undefined ? {} : { hint: `the nearest is "${similar}"` }),
    });
  }

  /** Reads a tensor's bytes, as they are in the file, into `destination`, which holds exactly as many. */
  async readInto(name: string, destination: Uint8Array): Promise<void> {
    const { begin, byteLength } = this.tensor(name);
    if (destination.byteLength !== byteLength) {
      throw new InternalError(
        `${whereIs(name, this.path)} has ${byteLength} bytes, its destination ${destination.byteLength}`,
      );
    }
    try {
      await readFully(this.#handle, destination, begin, { path: this.path, format: "gguf" });
    } catch (error) {
      throw asReadError(error, this.path);
    }
  }

  /** A tensor's bytes in memory of their own. */
  async read(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.tensor(name).byteLength);
    await this.readInto(name, bytes);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
