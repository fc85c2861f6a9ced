import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { SlipstreamError } from "../../base/errors.ts";
import { openGguf, writeGguf } from "./index.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Little-endian pieces of a file written by hand, after the format's description. */
const u32 = (value: number): number[] => [...new Uint8Array(Uint32Array.of(value).buffer)];
const u64 = (value: number | bigint): number[] => [
  ...new Uint8Array(BigUint64Array.of(BigInt(value)).buffer),
];
const text = (value: string): number[] => [...u64(Buffer.byteLength(value)), ...Buffer.from(value)];
const string = (key: string, value: string): number[] => [...text(key), ...u32(8), ...text(value)];
const start = (tensors: number | bigint, values: number | bigint, version = 3): number[] => [
  ...Buffer.from("GGUF"),
  ...u32(version),
  ...u64(tensors),
  ...u64(values),
];
const info = (
  name: string,
  dimensions: (number | bigint)[],
  type: number,
  offset: number | bigint,
): number[] => [
  ...text(name),
  ...u32(dimensions.length),
  ...dimensions.flatMap(u64),
  ...u32(type),
  ...u64(offset),
];
const padded = (bytes: number[], after: number): Uint8Array => {
  const length = Math.ceil(bytes.length / 32) * 32;
  return Uint8Array.from([
    ...bytes,
    ...new Array(length - bytes.length).fill(0),
    ...new Array(after).fill(7),
  ]);
};

let count = 0;
function file(bytes: Uint8Array | number[]): string {
  const path = join(folder, `${count++}.gguf`);
  writeFileSync(path, Uint8Array.from(bytes));
  return path;
}

async function failure(bytes: Uint8Array | number[]): Promise<SlipstreamError> {
  const error = await openGguf(file(bytes)).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(SlipstreamError);
  return error as SlipstreamError;
}

test("reads a file written by hand", async () => {
  const bytes = padded(
    [
      ...start(2, 6),
      ...string("general.architecture", "llama"),
      ...text("small"),
      ...u32(1),
      ...[0xff],
      ...text("big"),
      ...u32(10),
      ...u64(2n ** 63n + 1n),
      ...text("flags"),
      ...u32(9),
      ...u32(7),
      ...u64(3),
      ...[1, 0, 1],
      ...text("names"),
      ...u32(9),
      ...u32(8),
      ...u64(2),
      ...text("a"),
      ...text("ü"),
      ...text("scores"),
      ...u32(9),
      ...u32(6),
      ...u64(2),
      ...[...new Uint8Array(Float32Array.of(1.5, -2).buffer)],
      ...info("a", [32, 2], 8, 0),
      ...info("b", [3], 0, 96),
    ],
    96 + 12,
  );
  await using gguf = await openGguf(file(bytes));
  const { metadata, tensors } = gguf;
  expect(metadata.need("general.architecture", "string")).toBe("llama");
  expect(metadata.need("small", "number")).toBe(-1);
  expect(metadata.values.get("big")).toBe(2n ** 63n + 1n);
  expect(metadata.values.get("flags")).toEqual([true, false, true]);
  expect(metadata.need("names", "strings")).toEqual(["a", "ü"]);
  expect([...(metadata.need("scores", "numbers") as Float32Array)]).toEqual([1.5, -2]);
  expect(() => metadata.need("small", "string")).toThrow(/key "small"[\s\S]*a string[\s\S]*-1/);
  expect(() => metadata.need("absent", "string")).toThrow(/key "absent"[\s\S]*no such key/);
  const begin = bytes.length - 96 - 12;
  expect(tensors.get("a")).toEqual({ name: "a", type: "Q8_0", shape: [2, 32], begin, byteLength: 68 });
  expect(tensors.get("b")).toEqual({ name: "b", type: "F32", shape: [3], begin: begin + 96, byteLength: 12 });
  expect([...(await gguf.read("b"))]).toEqual(new Array(12).fill(7));
  expect(() => gguf.tensor("c")).toThrow(/tensor "c"/);
});

describe("refuses", () => {
  const one = (...entry: number[]): Uint8Array => padded([...start(1, 0), ...entry], 4096);
  test.each<[string, Uint8Array | number[], RegExp]>([
    [
      "bad magic",
      Buffer.from("GGML\u0003\u0000\u0000\u0000aaaaaaaaaaaaaaaa"),
      /not in GGUF format[\s\S]*"GGML"/,
    ],
    ["an empty file", [], /ends in the middle[\s\S]*0 bytes/],
    ["version 1", start(0, 0, 1), /version 2 or 3[\s\S]*version 1/],
    ["a big-endian file", start(0, 0, 0x03000000), /big-endian/],
    [
      "more tensors than the file can hold",
      start(2n ** 60n, 0),
      /number of tensors[\s\S]*1152921504606846976/,
    ],
    ["more metadata than the file can hold", start(0, 2n ** 62n), /number of metadata entries/],
    [
      "a key past the end",
      [...start(0, 1), ...u64(2n ** 40n), ...new Array(20).fill(65)],
      /length of a metadata key/,
    ],
    [
      "a list past the end",
      [...start(0, 1), ...text("k"), ...u32(9), ...u32(8), ...u64(10 ** 12)],
      /number of elements of metadata "k"[\s\S]*1000000000000/,
    ],
    [
      "a value of unknown type",
      [...start(0, 1), ...text("k"), ...u32(77), ...new Array(9).fill(0)],
      /unknown type[\s\S]*77/,
    ],
    ["a boolean of 2", [...start(0, 1), ...text("k"), ...u32(7), 2, ...u64(0)], /neither true nor false/],
    [
      "lists nested without end",
      [...start(0, 1), ...text("k"), ...u32(9), ...new Array(50).fill([...u32(9), ...u64(1)]).flat()],
      /nested too deeply/,
    ],
    [
      "a key twice",
      [...start(0, 2), ...string("k", "a"), ...string("k", "b")],
      /metadata key twice[\s\S]*"k"/,
    ],
    [
      "an alignment that is no power of two",
      [...start(0, 1), ...text("general.alignment"), ...u32(4), ...u32(48)],
      /power of two[\s\S]*48/,
    ],
    [
      "an unknown quantization, named",
      one(...info("blk.0.ffn_up.weight", [256], 17, 0)),
      /tensor blk\.0\.ffn_up\.weight is of type IQ2_XS \(17\)[\s\S]*one of F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K/,
    ],
    ["a type that nobody knows", one(...info("a", [256], 999, 0)), /an unknown type \(999\)/],
    ["no dimensions", one(...info("a", [], 0, 0), ...u64(0)), /1 to 4 dimensions[\s\S]*0/],
    ["too many dimensions", one(...info("a", [1, 1, 1, 1, 1], 0, 0)), /1 to 4 dimensions[\s\S]*5/],
    ["a dimension of 0", one(...info("a", [4, 0], 0, 0)), /\[4, 0\]/],
    [
      "dimensions that overflow",
      one(...info("a", [2n ** 40n, 2n ** 40n], 0, 0)),
      /possible number of elements/,
    ],
    ["rows that are not whole blocks", one(...info("a", [48, 4], 8, 0)), /multiple of 32[\s\S]*\[48, 4\]/],
    ["an offset past the end", one(...info("a", [4], 0, 2n ** 50n)), /offset of tensor "a"/],
    ["a misaligned offset", one(...info("a", [4], 0, 8)), /misaligned[\s\S]*multiple of 32/],
    ["a tensor past the end", one(...info("a", [2048], 0, 0)), /beyond the end[\s\S]*8/],
    [
      "tensors that overlap",
      padded([...start(2, 0), ...info("a", [16], 0, 0), ...info("b", [16], 0, 32)], 4096),
      /overlap[\s\S]*after "a"/,
    ],
    [
      "a tensor twice",
      padded([...start(2, 0), ...info("a", [8], 0, 0), ...info("a", [8], 0, 32)], 4096),
      /tensor twice/,
    ],
  ])("%s", async (_, bytes, message) => {
    const error = await failure(bytes);
    expect(error.name).toBe("FileFormatError");
    expect(error.message).toMatch(message);
    expect(error.details.where).toContain(".gguf");
  });

  test("a folder and a file that is not there", async () => {
    await expect(openGguf(folder)).rejects.toThrow(/one file[\s\S]*a folder|cannot be read/);
    await expect(openGguf(join(folder, "absent.gguf"))).rejects.toThrow("does not exist");
  });
});

async function example(): Promise<Uint8Array> {
  const path = join(folder, "example.gguf");
  await writeGguf(
    path,
    new Map([
      ["general.architecture", { type: "string", value: "llama" }],
      ["llama.block_count", { type: "uint32", value: 3 }],
      ["tokens", { type: "strings", value: ["a", "bc", "ü"] }],
      ["scores", { type: "float32s", value: [1, 2, 3] }],
      ["types", { type: "int32s", value: [1, 2, 3] }],
      ["flag", { type: "bool", value: true }],
    ]),
    [
      { name: "a", type: "F32", shape: [3, 5], data: () => new Uint8Array(60).fill(1) },
      { name: "b", type: "Q4_0", shape: [2, 64], data: () => new Uint8Array(72).fill(2) },
    ],
  );
  return readFileSync(path);
}

test("what is written reads back", async () => {
  await example();
  await using gguf = await openGguf(join(folder, "example.gguf"));
  expect(Object.fromEntries(gguf.metadata.values)).toEqual({
    "general.architecture": "llama",
    "llama.block_count": 3,
    tokens: ["a", "bc", "ü"],
    scores: Float32Array.of(1, 2, 3),
    types: Int32Array.of(1, 2, 3),
    flag: true,
  });
  expect(gguf.tensor("a")).toMatchObject({ type: "F32", shape: [3, 5], byteLength: 60 });
  expect(gguf.tensor("b")).toMatchObject({ type: "Q4_0", shape: [2, 64], byteLength: 72 });
  expect([...(await gguf.read("a"))]).toEqual(new Array(60).fill(1));
  expect([...(await gguf.read("b"))]).toEqual(new Array(72).fill(2));
});

test("a header longer than what is read first, in pieces", async () => {
  const path = join(folder, "long.gguf");
  const tokens = Array.from({ length: 60_000 }, (_, id) => `token ${id}`);
  await writeGguf(path, new Map([["tokens", { type: "strings", value: tokens }]]), []);
  await using gguf = await openGguf(path);
  expect(gguf.metadata.need("tokens", "strings")).toEqual(tokens);
});

test("random damage gives a FileFormatError or a header that fits the file, and never hangs", async () => {
  const whole = await example();
  const headerBytes = whole.length - 64 - 96;
  const damage = fc.record({
    changes: fc.array(fc.tuple(fc.nat(headerBytes - 1), fc.nat(255)), { minLength: 0, maxLength: 8 }),
    length: fc.option(fc.nat(whole.length), { nil: undefined, freq: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(damage, async ({ changes, length }) => {
      const bytes = Uint8Array.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      const path = file(bytes.subarray(0, length ?? bytes.length));
      try {
        await using gguf = await openGguf(path);
        for (const { begin, byteLength } of gguf.tensors.values()) {
          expect(begin + byteLength).toBeLessThanOrEqual(bytes.length);
        }
      } catch (error) {
        expect((error as Error).name).toBe("FileFormatError");
      }
      rmSync(path);
    }),
    { numRuns: 1500 },
  );
});

test("a failure leaves the old file and nothing else", async () => {
  const path = join(folder, "kept.gguf");
  writeFileSync(path, "old");
  const broken = (): Uint8Array => {
    throw new Error("no data");
  };
  await expect(
    writeGguf(path, new Map(), [{ name: "a", type: "F32", shape: [1], data: broken }]),
  ).rejects.toThrow("no data");
  const short = (): Uint8Array => new Uint8Array(3);
  await expect(
    writeGguf(path, new Map(), [{ name: "a", type: "F32", shape: [1], data: short }]),
  ).rejects.toThrow("has 4 bytes, its data 3");
  expect(readFileSync(path, "utf8")).toBe("old");
});
