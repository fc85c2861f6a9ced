import { FileFormatError } from "../../base/errors.ts";
import type { Cursor } from "./cursor.ts";
import { describeValue } from "./metadata.ts";
import {
  defaultAlignment,
  describeType,
  type MetadataValue,
  magic,
  numberBytes,
  type TensorTypeName,
  tensorBytes,
  tensorTypeOf,
  tensorTypes,
  type ValueType,
  valueTypes,
} from "./types.ts";

/** One tensor of a GGUF file. */
export interface GgufTensor {
  readonly name: string;
  readonly type: TensorTypeName;
  /** Row-major: the file's dimensions the other way round. */
  readonly shape: readonly number[];
  /** Where its bytes begin, from the start of the file. */
  readonly begin: number;
  readonly byteLength: number;
}

/** A tensor as messages name it; long names are cut. */
export function whereIs(name: string, path: string): string {
  return `tensor ${quote(name)} of ${path}`;
}

function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

/** A tensor whose place is still relative to where the tensors begin. */
interface TensorEntry {
  readonly name: string;
  readonly type: TensorTypeName;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly byteLength: number;
}

/** Dimensions of a tensor at the most, and arrays within arrays of metadata. */
const mostDimensions = 4;
const mostNesting = 4;

/** The least bytes of a metadata entry (an empty key, a type, a byte) and of a tensor's entry. */
const leastEntryBytes = 13;
const leastTensorBytes = 32;

/**
 * Reads a header entry by entry, so that it can go on where the buffer ended: see `Cursor`. Call `step` until
 * it is true.
 */
export class HeaderParser {
  readonly values = new Map<string, MetadataValue>();
  readonly #entries = new Map<string, TensorEntry>();
  readonly #path: string;
  readonly #cursor: Cursor;
  #version: number | undefined;
  #tensorCount = 0;
  #valueCount = 0;
  /** 64-byte alignment and the like is only known once all metadata is there. */
  #alignment = defaultAlignment;

  constructor(path: string, cursor: Cursor) {
    this.#path = path;
    this.#cursor = cursor;
  }

  get version(): number {
    return this.#version ?? 0;
  }

  /** Reads the next entry; true once there is none. @throws NeedsMore, FileFormatError. */
  step(): boolean {
    const start = this.#cursor.position;
    try {
      if (this.#version === undefined) this.#readStart();
      else if (this.values.size < this.#valueCount) this.#readValue();
      else if (this.#entries.size < this.#tensorCount) this.#readTensor();
      else return true;
      return false;
    } catch (error) {
      this.#cursor.position = start;
      throw error;
    }
  }

  /** Every tensor with its place, in the file's order. @throws FileFormatError for places that cannot be. */
  tensors(fileBytes: number): Map<string, GgufTensor> {
    const start = Math.ceil(this.#cursor.position / this.#alignment) * this.#alignment;
    const tensors = new Map<string, GgufTensor>();
    for (const { name, type, shape, offset, byteLength } of this.#entries.values()) {
      const begin = start + offset;
      if (offset % this.#alignment !== 0) {
        throw new FileFormatError("gguf_offset", "a tensor of a GGUF file is misaligned", {
          where: whereIs(name, this.#path),
          expected: `an offset that is a multiple of ${this.#alignment}`,
          received: String(offset),
          hint: "the file is corrupt: copy or download it again",
        });
      }
      if (begin + byteLength > fileBytes) {
        throw new FileFormatError("gguf_truncated", "a tensor lies beyond the end of its GGUF file", {
          where: whereIs(name, this.#path),
          expected: `bytes ${begin} to ${begin + byteLength}`,
          received: `a file of ${fileBytes} bytes`,
          hint: "the file is truncated: copy or download it again",
        });
      }
      tensors.set(name, { name, type, shape, begin, byteLength });
    }
    this.#requireApart(tensors);
    return tensors;
  }

  #requireApart(tensors: ReadonlyMap<string, GgufTensor>): void {
    const ordered = [...tensors.values()].sort((a, b) => a.begin - b.begin);
    ordered.forEach((tensor, index) => {
      const before = ordered[index - 1];
      if (before === undefined || before.begin + before.byteLength <= tensor.begin) return;
      throw new FileFormatError("gguf_offset", "two tensors of a GGUF file overlap", {
        where: whereIs(tensor.name, this.#path),
        expected: `to begin at byte ${before.begin + before.byteLength} or later, after ${quote(before.name)}`,
        received: `byte ${tensor.begin}`,
        hint: "the file is corrupt: copy or download it again",
      });
    });
  }

  #readStart(): void {
    const found = this.#cursor.uint32("the first bytes");
    if (found !== magic) {
      throw new FileFormatError("gguf_magic", "a file is not in GGUF format", {
        where: this.#path,
        expected: 'the first four bytes "GGUF"',
        received: JSON.stringify(
          String.fromCharCode(found & 0xff, (found >> 8) & 0xff, (found >> 16) & 0xff, found >>> 24),
        ),
        hint: "check that this is the model's file and that its download finished",
      });
    }
    const version = this.#cursor.uint32("the version");
    if (version !== 2 && version !== 3) {
      throw new FileFormatError("gguf_version", "a GGUF file has a version that is not read", {
        where: this.#path,
        expected: "version 2 or 3, little-endian",
        received: version % 65536 === 0 && version > 0 ? "a big-endian file" : `version ${version}`,
        hint: "convert the model again with a current tool",
      });
    }
    this.#tensorCount = this.#cursor.count("the number of tensors", leastTensorBytes);
    this.#valueCount = this.#cursor.count("the number of metadata entries", leastEntryBytes);
    this.#version = version;
  }

  #readValue(): void {
    const key = this.#cursor.string("a metadata key");
    if (this.values.has(key)) throw this.#twice("metadata key", key);
    const what = `metadata ${quote(key)}`;
    const value = this.#value(this.#valueType(what), what, 0);
    if (key === "general.alignment") this.#alignment = this.#checkAlignment(value);
    this.values.set(key, value);
  }

  #checkAlignment(value: MetadataValue): number {
    const isPower = typeof value === "number" && value > 0 && value <= 2 ** 20 && (value & (value - 1)) === 0;
    if (isPower) return value;
    throw new FileFormatError("gguf_alignment", "a GGUF file has an alignment that cannot be", {
      where: `metadata "general.alignment" of ${this.#path}`,
      expected: "a power of two, such as 32",
      received: describeValue(value),
    });
  }

  #valueType(what: string): ValueType {
    const id = this.#cursor.uint32(`the type of ${what}`);
    const type = valueTypes[id];
    if (type !== undefined) return type;
    throw new FileFormatError("gguf_value_type", "a GGUF file holds metadata of an unknown type", {
      where: `${what} of ${this.#path}`,
      expected: `a type from 0 to ${valueTypes.length - 1}`,
      received: String(id),
      hint: "the file is corrupt, or newer than this program: copy or download it again",
    });
  }

  #value(type: ValueType, what: string, depth: number): MetadataValue {
    switch (type) {
      case "string":
        return this.#cursor.string(what);
      case "bool":
        return this.#boolean(what);
      case "array":
        return this.#array(what, depth);
      default:
        return this.#cursor[type](what);
    }
  }

  #boolean(what: string): boolean {
    const byte = this.#cursor.uint8(what);
    if (byte <= 1) return byte === 1;
    throw new FileFormatError("gguf_bool", "a GGUF file holds a boolean that is neither true nor false", {
      where: `${what} of ${this.#path}`,
      expected: "0 or 1",
      received: String(byte),
    });
  }

  #array(what: string, depth: number): MetadataValue {
    if (depth >= mostNesting) {
      throw new FileFormatError("gguf_nesting", "a GGUF file holds metadata that is nested too deeply", {
        where: `${what} of ${this.#path}`,
        expected: `at most ${mostNesting} lists within lists`,
        received: "more",
      });
    }
    const type = this.#valueType(`the elements of ${what}`);
    const least = type === "string" ? 8 : type === "array" ? 12 : type === "bool" ? 1 : numberBytes[type];
    const count = this.#cursor.count(`the number of elements of ${what}`, least);
    if (type === "float32") return new Float32Array(this.#cursor.bytes(count * 4, what).buffer);
    if (type === "int32") return new Int32Array(this.#cursor.bytes(count * 4, what).buffer);
    const values: MetadataValue[] = [];
    for (let index = 0; index < count; index++) values.push(this.#value(type, what, depth + 1));
    return values;
  }

  #readTensor(): void {
    const cursor = this.#cursor;
    const name = cursor.string("a tensor's name");
    if (this.#entries.has(name)) throw this.#twice("tensor", name);
    const where = whereIs(name, this.#path);
    const dimensions = cursor.uint32(`the number of dimensions of tensor ${quote(name)}`);
    if (dimensions < 1 || dimensions > mostDimensions) {
      throw new FileFormatError("gguf_shape", "a GGUF file holds a tensor whose shape is none", {
        where,
        expected: `1 to ${mostDimensions} dimensions`,
        received: String(dimensions),
      });
    }
    const stored = Array.from({ length: dimensions }, () => cursor.uint64("a dimension"));
    const typeId = cursor.uint32(`the type of tensor ${quote(name)}`);
    const type = tensorTypeOf(typeId);
    if (type === undefined) {
      throw new FileFormatError(
        "gguf_tensor_type",
        `tensor ${name.slice(0, 200)} is of type ${describeType(typeId)}`,
        {
          where,
          expected: `one of ${Object.keys(tensorTypes).join(", ")}`,
          received: describeType(typeId),
          hint: "download the model in one of these types, or convert it again",
        },
      );
    }
    const elements = stored.reduce<number>((product, dimension) => product * Number(dimension), 1);
    const fits = Number.isSafeInteger(elements) && elements > 0;
    if (!fits || Number(stored[0]) % tensorTypes[type].elements !== 0) {
      throw new FileFormatError("gguf_shape", "a GGUF file holds a tensor whose shape cannot be", {
        where,
        expected: fits
          ? `rows of a multiple of ${tensorTypes[type].elements} elements, the blocks of ${type}`
          : "dimensions above 0 whose product is a possible number of elements",
        received: `[${stored.join(", ")}]`,
        hint: "the file is corrupt: copy or download it again",
      });
    }
    const offset = cursor.uint64(`the offset of tensor ${quote(name)}`);
    cursor.requireRoom(offset, 1, `the offset of tensor ${quote(name)}`);
    const shape = stored.map(Number).reverse();
    this.#entries.set(name, {
      name,
      type,
      shape,
      offset: Number(offset),
      byteLength: tensorBytes(type, elements),
    });
  }

  #twice(kind: string, name: string): FileFormatError {
    return new FileFormatError("gguf_duplicate", `a GGUF file has a ${kind} twice`, {
      where: `${kind} ${quote(name)} of ${this.#path}`,
      expected: "every name once",
      received: "the same name again",
      hint: "the file is corrupt: write it again with the tool that made it",
    });
  }
}
