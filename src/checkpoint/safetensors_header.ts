import type { DType } from "../base/dtype.ts";
import { FileFormatError } from "../base/errors.ts";
import { scanJson } from "./json_scan.ts";

// The format (github.com/huggingface/safetensors): 8 bytes, the header's length n as a little-endian
// unsigned integer; n bytes of JSON, `{"name": {"dtype", "shape", "data_offsets": [begin, end]}, …}` with
// an optional `"__metadata__"` of strings; then the tensors' bytes, row-major and little-endian, to which
// the offsets refer, without gaps, overlaps or anything after them.

/** Every dtype of the format with the bytes of one element. */
const bytesByStoredDType = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
} as const;

/** A dtype as the file names it. */
export type StoredDType = keyof typeof bytesByStoredDType;

/** How Slipstream's dtypes are stored. */
export const storedByDType = {
  f32: "F32",
  bf16: "BF16",
  f16: "F16",
  i32: "I32",
  u8: "U8",
  i8: "I8",
  f64: "F64",
} as const satisfies Record<DType, StoredDType>;

/** The dtype in which stored elements are read; undefined for those that Slipstream does not read. */
export function dtypeOfStored(stored: StoredDType): DType | undefined {
  if (stored === "I64") return "i32";
  if (stored === "BOOL") return "u8";
  for (const [dtype, name] of Object.entries(storedByDType)) if (name === stored) return dtype as DType;
  return undefined;
}

/** Where one tensor lies: bytes [begin, end) after the header. */
export interface StoredTensor {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A valid header. `tensors` is in the order of the bytes in the file. */
export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: ReadonlyMap<string, string>;
  /** Where the tensors' bytes begin, from the start of the file. */
  readonly dataStart: number;
}

/** Bytes before the JSON. */
export const lengthBytes = 8;

/** The longest header that is read: the limit of the format's own library. */
const maximumHeaderBytes = 100_000_000;

/** Names, tensor, and shape or offsets: nothing in a true header is deeper. */
const maximumDepth = 8;

/**
 * The header's length, from the file's first 8 bytes.
 * @throws FileFormatError where the file cannot hold such a header.
 */
export function parseHeaderLength(first: Uint8Array, fileBytes: number, path: string): number {
  if (first.length < lengthBytes) {
    throw new FileFormatError("safetensors_truncated", "a safetensors file is too short to hold a header", {
      where: path,
      expected: `at least ${lengthBytes} bytes`,
      received: `${fileBytes} bytes`,
      hint: "copy or download it again",
    });
  }
  const length = new DataView(first.buffer, first.byteOffset, lengthBytes).getBigUint64(0, true);
  const room = BigInt(fileBytes - lengthBytes);
  if (length > room) {
    throw new FileFormatError("safetensors_header_length", "a safetensors header is longer than its file", {
      where: path,
      expected: `a header of at most ${room} bytes, in a file of ${fileBytes}`,
      received: `a header that claims ${length} bytes`,
      hint: "the file is truncated or is not in safetensors format: copy or download it again",
    });
  }
  if (length > BigInt(maximumHeaderBytes)) {
    throw new FileFormatError("safetensors_header_length", "a safetensors header is too long", {
      where: path,
      expected: `at most ${maximumHeaderBytes} bytes`,
      received: `${length} bytes`,
    });
  }
  return Number(length);
}

/**
 * Parses and checks the header's JSON of a file of `fileBytes` bytes.
 * @throws FileFormatError naming the file and the tensor.
 */
export function parseHeader(json: Uint8Array, fileBytes: number, path: string): SafetensorsHeader {
  const entries = parseJson(json, path);
  const dataStart = lengthBytes + json.length;
  const tensors: [string, StoredTensor][] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, entry] of Object.entries(entries)) {
    if (name === "__metadata__") metadata = parseMetadata(entry, path);
    else tensors.push([name, parseTensor(name, entry, path)]);
  }
  tensors.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  requireContiguous(tensors, fileBytes - dataStart, path);
  return { tensors: new Map(tensors), metadata, dataStart };
}

/** A tensor of a file as error messages name it; long names are cut. */
export function whereOf(path: string, name: string): string {
  return `tensor ${quote(name)} of ${path}`;
}

function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

function parseJson(json: Uint8Array, path: string): Record<string, unknown> {
  const broken = (received: string, cause?: unknown) =>
    new FileFormatError("safetensors_not_json", "a safetensors header is not a JSON object", {
      where: path,
      expected: 'JSON such as {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
      received,
      hint: "the file is corrupt or is not in safetensors format: copy or download it again",
      cause,
    });
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
    requireFlatAndUnique(text, path);
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof FileFormatError) throw error;
    throw broken(error instanceof Error ? error.message : String(error), error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw broken(describe(value));
  return value as Record<string, unknown>;
}

/** Refuses, by name, what JSON.parse would accept without a word. */
function requireFlatAndUnique(text: string, path: string): void {
  const problem = scanJson(text, maximumDepth);
  if (problem === undefined) return;
  if (problem.kind === "too deep") {
    throw new FileFormatError("safetensors_not_json", "a safetensors header is nested too deeply", {
      where: path,
      expected: `at most ${maximumDepth} levels`,
      received: "more",
    });
  }
  throw new FileFormatError("safetensors_duplicate", "a safetensors header names something twice", {
    where: problem.depth === 1 ? whereOf(path, problem.key) : path,
    expected: "every name once",
    received: `${quote(problem.key)} twice`,
    hint: "the file is corrupt: write it again with the tool that made it",
  });
}

function parseMetadata(entry: unknown, path: string): ReadonlyMap<string, string> {
  const pairs =
    typeof entry === "object" && entry !== null && !Array.isArray(entry) ? Object.entries(entry) : null;
  const wrong = pairs?.find(([, value]) => typeof value !== "string");
  if (pairs === null || wrong !== undefined) {
    throw new FileFormatError(
      "safetensors_metadata",
      "the metadata of a safetensors file is not made of strings",
      {
        where: path,
        expected: "an object of strings as __metadata__",
        received: wrong === undefined ? describe(entry) : `${quote(wrong[0])}: ${describe(wrong[1])}`,
      },
    );
  }
  return new Map(pairs as [string, string][]);
}

function parseTensor(name: string, entry: unknown, path: string): StoredTensor {
  const where = whereOf(path, name);
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw new FileFormatError("safetensors_entry", "a safetensors header does not describe a tensor", {
      where,
      expected: "an object with dtype, shape and data_offsets",
      received: describe(entry),
    });
  }
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(bytesByStoredDType, dtype)) {
    throw new FileFormatError("safetensors_dtype", "a safetensors file holds a tensor of unknown dtype", {
      where,
      expected: Object.keys(bytesByStoredDType).join(", "),
      received: describe(dtype),
    });
  }
  if (!isCounts(shape)) {
    throw new FileFormatError("safetensors_shape", "a safetensors file holds a tensor whose shape is none", {
      where,
      expected: "shape: a list of whole numbers that are not negative",
      received: describe(shape),
    });
  }
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw new FileFormatError(
      "safetensors_offsets",
      "a safetensors file holds a tensor without proper offsets",
      {
        where,
        expected: "data_offsets: [begin, end] with 0 <= begin <= end",
        received: describe(offsets),
      },
    );
  }
  const stored = dtype as StoredDType;
  const [begin, end] = offsets as [number, number];
  const bytes = byteCount(stored, shape);
  if (bytes !== end - begin) {
    throw new FileFormatError("safetensors_size", "a tensor's shape and dtype do not fit its bytes", {
      where,
      expected: `${Number.isSafeInteger(bytes) ? bytes : "impossibly many"} bytes for ${stored} [${describeShape(shape)}]`,
      received: `${end - begin} bytes, from ${begin} to ${end}`,
      hint: "the file is corrupt: copy or download it again",
    });
  }
  return { dtype: stored, shape, begin, end };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** Bytes of a tensor; above the safe integers it is inexact and fits no file. */
function byteCount(dtype: StoredDType, shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((product, dimension) => product * dimension, bytesByStoredDType[dtype]);
}

function requireContiguous(
  tensors: readonly [string, StoredTensor][],
  dataBytes: number,
  path: string,
): void {
  let position = 0;
  let previous: string | undefined;
  for (const [name, { begin, end }] of tensors) {
    if (end > dataBytes) {
      throw new FileFormatError(
        "safetensors_truncated",
        "a tensor lies beyond the end of its safetensors file",
        {
          where: whereOf(path, name),
          expected: `bytes ${begin} to ${end} after the header`,
          received: `a file with ${dataBytes} bytes after the header`,
          hint: "the file is truncated: copy or download it again",
        },
      );
    }
    if (begin !== position) {
      const overlaps = begin < position;
      const after = previous === undefined ? "at the start" : `after ${quote(previous)}`;
      throw new FileFormatError(
        "safetensors_offsets",
        overlaps
          ? "two tensors of a safetensors file overlap"
          : "a safetensors file has a gap between its tensors",
        {
          where: whereOf(path, name),
          expected: `to begin at byte ${position}, ${after}`,
          received: `bytes ${begin} to ${end}`,
          hint: "the file is corrupt: write it again with the tool that made it",
        },
      );
    }
    position = end;
    previous = name;
  }
  if (position !== dataBytes) {
    throw new FileFormatError(
      "safetensors_offsets",
      "a safetensors file holds bytes that belong to no tensor",
      {
        where: path,
        expected: `${position} bytes after the header`,
        received: `${dataBytes} bytes`,
        hint: "the file is corrupt: write it again with the tool that made it",
      },
    );
  }
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

function describeShape(shape: readonly number[]): string {
  const text = shape.slice(0, 16).join(", ");
  return shape.length > 16 ? `${text}, …` : text;
}
