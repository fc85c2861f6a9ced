import { mkdir, rename } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { InternalError } from "../../base/errors.ts";
import { elementCount } from "../../base/shape.ts";
import { discard, nameBeside, removeLeftovers, syncFolder } from "../atomic.ts";
import { asWriteError } from "../file_errors.ts";
import { createFile, type FileWriter } from "../file_writer.ts";
import {
  defaultAlignment,
  magic,
  type NumberType,
  numberBytes,
  type TensorTypeName,
  tensorBytes,
  tensorTypes,
  type ValueType,
  valueTypes,
} from "./types.ts";

/** A metadata value to write, with the type that readers expect of its key. */
export type GgufEntry =
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: NumberType; readonly value: number }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "float32s" | "int32s"; readonly value: ArrayLike<number> };

/** One tensor to write. */
export interface GgufSource {
  readonly name: string;
  readonly type: TensorTypeName;
  /** Row-major; the last dimension is whole blocks of the type. */
  readonly shape: readonly number[];
  /**
   * Its bytes, as the file has them, whole or in pieces that follow one another. Called when its turn comes;
   * what it gives is written before more is asked for.
   */
  readonly data: () => Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

/**
 * Writes a GGUF file (version 3), all at once: after a failure there stands what stood there before.
 * @throws RunError where the system refuses (a full disk); what a `data` throws.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly GgufSource[],
): Promise<{ readonly bytes: number }> {
  const header = encodeHeader(metadata, tensors);
  const sizes = tensors.map(({ type, shape }) => tensorBytes(type, elementCount(shape)));
  const total = sizes.reduce((sum, size) => sum + aligned(size), header.length);
  const folder = dirname(resolve(path));
  const temporary = nameBeside(path);
  try {
    await mkdir(folder, { recursive: true });
    await removeLeftovers(folder);
    const { bytes } = await createFile(temporary, async (writer) => {
      await writer.write(header);
      for (const [index, tensor] of tensors.entries()) await writeTensor(writer, tensor, sizes[index]!);
    });
    await rename(temporary, path);
    await syncFolder(folder);
    return { bytes };
  } catch (error) {
    await discard(temporary);
    throw asWriteError(error, path, total);
  }
}

async function writeTensor(writer: FileWriter, tensor: GgufSource, expected: number): Promise<void> {
  const before = writer.bytes;
  const data = tensor.data();
  if (Symbol.asyncIterator in data) for await (const piece of data) await writer.write(piece);
  else await writer.write(await data);
  const written = writer.bytes - before;
  if (written !== expected) {
    throw new InternalError(`tensor ${tensor.name} has ${expected} bytes, its data ${written}`);
  }
  await writer.write(new Uint8Array(aligned(written) - written));
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / defaultAlignment) * defaultAlignment;
}

function encodeHeader(metadata: ReadonlyMap<string, GgufEntry>, tensors: readonly GgufSource[]): Uint8Array {
  const out = new HeaderWriter();
  out.number("uint32", magic);
  out.number("uint32", 3);
  out.number("uint64", tensors.length);
  out.number("uint64", metadata.size);
  for (const [key, entry] of metadata) {
    out.string(key);
    out.entry(entry);
  }
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    out.string(name);
    out.number("uint32", shape.length);
    for (const dimension of shape.toReversed()) out.number("uint64", dimension);
    out.number("uint32", tensorTypes[type].id);
    out.number("uint64", offset);
    offset += aligned(tensorBytes(type, elementCount(shape)));
  }
  return out.finish();
}

const setters: Readonly<Record<NumberType, (view: DataView, at: number, value: number) => void>> = {
  uint8: (view, at, value) => view.setUint8(at, value),
  int8: (view, at, value) => view.setInt8(at, value),
  uint16: (view, at, value) => view.setUint16(at, value, true),
  int16: (view, at, value) => view.setInt16(at, value, true),
  uint32: (view, at, value) => view.setUint32(at, value, true),
  int32: (view, at, value) => view.setInt32(at, value, true),
  float32: (view, at, value) => view.setFloat32(at, value, true),
  uint64: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
  int64: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
  float64: (view, at, value) => view.setFloat64(at, value, true),
};

/** Little-endian values one after another, in a buffer that grows. */
class HeaderWriter {
  #buffer = Buffer.alloc(1 << 16);
  #length = 0;

  number(type: NumberType, value: number): void {
    const at = this.#grow(numberBytes[type]);
    setters[type](new DataView(this.#buffer.buffer, this.#buffer.byteOffset), at, value);
  }

  string(text: string): void {
    const length = Buffer.byteLength(text);
    this.number("uint64", length);
    const at = this.#grow(length);
    this.#buffer.write(text, at);
  }

  entry(entry: GgufEntry): void {
    switch (entry.type) {
      case "string":
        this.#type("string");
        this.string(entry.value);
        break;
      case "bool":
        this.#type("bool");
        this.number("uint8", entry.value ? 1 : 0);
        break;
      case "strings":
        this.#list("string", entry.value.length);
        for (const text of entry.value) this.string(text);
        break;
      case "float32s":
      case "int32s": {
        const type = entry.type === "float32s" ? "float32" : "int32";
        this.#list(type, entry.value.length);
        for (let i = 0; i < entry.value.length; i++) this.number(type, entry.value[i]!);
        break;
      }
      default:
        this.#type(entry.type);
        this.number(entry.type, entry.value);
    }
  }

  /** Everything, padded to where the tensors begin. */
  finish(): Uint8Array {
    this.#grow(aligned(this.#length) - this.#length);
    return this.#buffer.subarray(0, this.#length);
  }

  #type(type: ValueType): void {
    this.number("uint32", valueTypes.indexOf(type));
  }

  #list(type: ValueType, length: number): void {
    this.#type("array");
    this.#type(type);
    this.number("uint64", length);
  }

  /** Room for `bytes` more; where they begin. */
  #grow(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(this.#length, this.#buffer.length * 2));
      this.#buffer.copy(larger);
      this.#buffer = larger;
    }
    return at;
  }
}
