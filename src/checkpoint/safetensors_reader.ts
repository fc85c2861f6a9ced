import { type FileHandle, open } from "node:fs/promises";
import { formatBytes } from "../base/bytes.ts";
import { bytesPerElement, type DType, type TensorData, viewOf } from "../base/dtype.ts";
import { FileFormatError, InternalError, RunError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import { nearest } from "../base/suggest.ts";
import { asReadError } from "./file_errors.ts";
import { bytesOf } from "./file_writer.ts";
import { readFully } from "./read_fully.ts";
import {
  dtypeOfStored,
  lengthBytes,
  parseHeader,
  parseHeaderLength,
  type SafetensorsHeader,
  type StoredTensor,
  whereOf,
} from "./safetensors_header.ts";

/** What a tensor is once it is read. */
export interface TensorInfo {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes of its data in memory. */
  readonly byteLength: number;
}

/** Named tensors in one or more files, read one by one. Reads may run at the same time. */
export interface TensorReader {
  /** The file or folder, for messages. */
  readonly path: string;
  /** What the writer noted, such as `format: pt`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Every name, in the order of the files. */
  names(): string[];
  has(name: string): boolean;
  /**
   * What `read` will give.
   * @throws FileFormatError where there is no such tensor or its dtype is one that Slipstream does not read.
   */
  info(name: string): TensorInfo;
  /**
   * The tensor's data, in memory of its own. 64-bit integers come as i32, booleans as u8.
   * @throws FileFormatError as `info`, or where a 64-bit integer does not fit in 32 bits.
   */
  read(name: string): Promise<TensorData>;
  /**
   * Reads the tensor's bytes into `destination`, which holds exactly `info(name).byteLength` bytes.
   * @throws as `read`.
   */
  readInto(name: string, destination: Uint8Array): Promise<void>;
  /**
   * Reads the bytes from `offset` of the tensor's data on, as they lie in the file, until `destination` is full.
   * @throws FileFormatError where there is no such tensor, or it ends before that.
   */
  readRange(name: string, offset: number, destination: Uint8Array): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens a safetensors file and checks its header; no tensor is read yet.
 * @throws FileFormatError naming the file, and the tensor where one is at fault.
 */
export async function openSafetensors(path: string): Promise<TensorReader> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    throw asReadError(error, path);
  }
  try {
    const fileBytes = (await handle.stat()).size;
    const first = new Uint8Array(Math.min(lengthBytes, fileBytes));
    const file = { path, format: "safetensors" };
    await readFully(handle, first, 0, file);
    const json = new Uint8Array(parseHeaderLength(first, fileBytes, path));
    await readFully(handle, json, lengthBytes, file);
    return new SafetensorsReader(path, handle, parseHeader(json, fileBytes, path));
  } catch (error) {
    await handle.close();
    throw asReadError(error, path);
  }
}

class SafetensorsReader implements TensorReader {
  readonly path: string;
  readonly #handle: FileHandle;
  readonly #header: SafetensorsHeader;

  constructor(path: string, handle: FileHandle, header: SafetensorsHeader) {
    this.path = path;
    this.#handle = handle;
    this.#header = header;
  }

  get metadata(): ReadonlyMap<string, string> {
    return this.#header.metadata;
  }

  names(): string[] {
    return [...this.#header.tensors.keys()];
  }

  has(name: string): boolean {
    return this.#header.tensors.has(name);
  }

  info(name: string): TensorInfo {
    const stored = this.#stored(name);
    const dtype = dtypeOfStored(stored.dtype);
    if (dtype === undefined) {
      throw new FileFormatError("safetensors_dtype", "a tensor has a dtype that Slipstream does not read", {
        where: whereOf(this.path, name),
        expected: "F32, BF16, F16, F64, I32, I64, U8, I8 or BOOL",
        received: stored.dtype,
        hint: "convert the tensor and save the file again",
      });
    }
    return { dtype, shape: stored.shape, byteLength: elementCount(stored.shape) * bytesPerElement(dtype) };
  }

  async read(name: string): Promise<TensorData> {
    const { dtype } = this.info(name);
    const stored = this.#stored(name);
    const bytes = allocate(stored.end - stored.begin, whereOf(this.path, name));
    await this.#readBytes(stored.begin, bytes);
    return stored.dtype === "I64" ? narrow(bytes, whereOf(this.path, name)) : viewOf(dtype, bytes.buffer);
  }

  async readInto(name: string, destination: Uint8Array): Promise<void> {
    const { byteLength } = this.info(name);
    if (destination.byteLength !== byteLength) {
      throw new InternalError(
        `${whereOf(this.path, name)} has ${byteLength} bytes, its destination ${destination.byteLength}`,
      );
    }
    const stored = this.#stored(name);
    if (stored.dtype === "I64") destination.set(bytesOf(await this.read(name)));
    else await this.#readBytes(stored.begin, destination);
  }

  async readRange(name: string, offset: number, destination: Uint8Array): Promise<void> {
    const { begin, end } = this.#stored(name);
    if (offset < 0 || begin + offset + destination.byteLength > end) {
      throw new FileFormatError("safetensors_range", "a tensor is shorter than what is asked of it", {
        where: whereOf(this.path, name),
        expected: `${offset + destination.byteLength} bytes`,
        received: `${end - begin} bytes`,
      });
    }
    await this.#readBytes(begin + offset, destination);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #stored(name: string): StoredTensor {
    return this.#header.tensors.get(name) ?? throwMissing(this, name);
  }

  async #readBytes(begin: number, destination: Uint8Array): Promise<void> {
    try {
      await readFully(this.#handle, destination, this.#header.dataStart + begin, {
        path: this.path,
        format: "safetensors",
      });
    } catch (error) {
      throw asReadError(error, this.path);
    }
  }
}

/** Throws the error for a name that a reader does not hold, with the nearest that it does. */
export function throwMissing(reader: TensorReader, name: string): never {
  const similar = nearest(name, reader.names());
  throw new FileFormatError("missing_tensor", "a file does not hold a tensor that is asked for", {
    where: whereOf(reader.path, name),
    received: `${reader.names().length} tensors of other names`,
    ...(similar === undefined ? {} : { hint: `did you mean "${similar}"?` }),
  });
}

function allocate(bytes: number, where: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new RunError("out_of_memory", "a tensor does not fit in memory", {
      where,
      received: formatBytes(bytes),
      cause: error,
    });
  }
}

/** 64-bit integers as 32-bit ones. */
function narrow(bytes: Uint8Array<ArrayBuffer>, where: string): Int32Array {
  const words = new Int32Array(bytes.buffer);
  const values = new Int32Array(words.length / 2);
  for (let i = 0; i < values.length; i++) {
    const low = words[2 * i]!;
    if (words[2 * i + 1] !== low >> 31) {
      throw new FileFormatError("safetensors_range", "a 64-bit integer does not fit in 32 bits", {
        where: `element ${i} of ${where}`,
        expected: "-2147483648 to 2147483647",
        received: String(new BigInt64Array(bytes.buffer)[i]),
      });
    }
    values[i] = low;
  }
  return values;
}
