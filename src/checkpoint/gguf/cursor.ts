import { FileFormatError } from "../../base/errors.ts";

/** Thrown where a read needs bytes that the file has and the buffer does not have yet. */
export class NeedsMore extends Error {
  /** Bytes from the start of the file that must be in the buffer. */
  readonly bytes: number;

  constructor(bytes: number) {
    super("needs more of the file");
    this.bytes = bytes;
  }
}

/**
 * Reads little-endian numbers and texts from the front of a file of which only a part is in memory yet. Every
 * length is held against the file's size before anything is read or allocated.
 */
export class Cursor {
  readonly #path: string;
  readonly #fileBytes: number;
  #buffer: Buffer;
  /** Where the next read begins. */
  position = 0;

  constructor(path: string, fileBytes: number, buffer: Buffer) {
    this.#path = path;
    this.#fileBytes = fileBytes;
    this.#buffer = buffer;
  }

  /** Goes on with more of the file. */
  extend(buffer: Buffer): void {
    this.#buffer = buffer;
  }

  /** Bytes of the file after the position. */
  get left(): number {
    return this.#fileBytes - this.position;
  }

  uint8(what: string): number {
    return this.#buffer.readUInt8(this.#take(1, what));
  }

  int8(what: string): number {
    return this.#buffer.readInt8(this.#take(1, what));
  }

  uint16(what: string): number {
    return this.#buffer.readUInt16LE(this.#take(2, what));
  }

  int16(what: string): number {
    return this.#buffer.readInt16LE(this.#take(2, what));
  }

  uint32(what: string): number {
    return this.#buffer.readUInt32LE(this.#take(4, what));
  }

  int32(what: string): number {
    return this.#buffer.readInt32LE(this.#take(4, what));
  }

  float32(what: string): number {
    return this.#buffer.readFloatLE(this.#take(4, what));
  }

  float64(what: string): number {
    return this.#buffer.readDoubleLE(this.#take(8, what));
  }

  uint64(what: string): number | bigint {
    return exact(this.#buffer.readBigUInt64LE(this.#take(8, what)));
  }

  int64(what: string): number | bigint {
    return exact(this.#buffer.readBigInt64LE(this.#take(8, what)));
  }

  /**
   * A count of things that take at least `bytesEach` bytes of the rest of the file.
   * @throws FileFormatError where that many cannot be there.
   */
  count(what: string, bytesEach: number): number {
    const count = this.uint64(what);
    this.requireRoom(count, bytesEach, what);
    return Number(count);
  }

  /** @throws FileFormatError where `count` things of `bytesEach` bytes are more than the rest of the file. */
  requireRoom(count: number | bigint, bytesEach: number, what: string): void {
    if (Number(count) * bytesEach <= this.left) return;
    throw new FileFormatError("gguf_length", "a length in a GGUF file goes past the file's end", {
      where: `${what}, at byte ${this.position} of ${this.#path}`,
      expected: `at most ${Math.floor(this.left / bytesEach)}, for ${this.left} bytes are left`,
      received: String(count),
      hint: "the file is truncated or corrupt: copy or download it again",
    });
  }

  /** A text: its length in bytes (uint64), then UTF-8. Vocabularies have a hundred thousand: no BigInt here. */
  string(what: string): string {
    const at = this.#take(8, what);
    const length = this.#buffer.readUInt32LE(at) + this.#buffer.readUInt32LE(at + 4) * 2 ** 32;
    if (length > this.left) this.requireRoom(length, 1, `the length of ${what}`);
    const start = this.#take(length, what);
    return this.#buffer.toString("utf8", start, start + length);
  }

  /** `length` bytes in memory of their own. */
  bytes(length: number, what: string): Uint8Array<ArrayBuffer> {
    const start = this.#take(length, what);
    return Uint8Array.from(this.#buffer.subarray(start, start + length));
  }

  #take(length: number, what: string): number {
    const start = this.position;
    const end = start + length;
    if (end > this.#fileBytes) {
      throw new FileFormatError("gguf_truncated", "a GGUF file ends in the middle of its header", {
        where: `${what}, at byte ${start} of ${this.#path}`,
        expected: `${length} bytes`,
        received: `${this.left} bytes, then the end of the file`,
        hint: "the file is truncated: copy or download it again",
      });
    }
    if (end > this.#buffer.length) throw new NeedsMore(end);
    this.position = end;
    return start;
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
