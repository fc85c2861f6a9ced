import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileFormatError } from "../base/errors.ts";
import { openSafetensors } from "./safetensors_reader.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** A file put together by hand: length, header text, data. */
async function fileOf(
  header: string | Uint8Array,
  data: readonly number[] = [],
  length?: bigint,
): Promise<string> {
  const json = Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  const path = join(folder, "hand.safetensors");
  await writeFile(path, Buffer.concat([prefix, json, Buffer.from(data)]));
  return path;
}

async function failureOf(path: string): Promise<FileFormatError> {
  const error: unknown = await openSafetensors(path).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FileFormatError);
  return error as FileFormatError;
}

describe("a file put together by hand", () => {
  test("gives every dtype, at odd offsets and in the order of its bytes", async () => {
    const header = `{"__metadata__":{"format":"pt","note":"a \\"b\\" {"},
      "last":{"dtype":"I64","shape":[2],"data_offsets":[38,54]},
      "bytes":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
      "small":{"dtype":"I8","shape":[1,1],"data_offsets":[3,4]},
      "mask":{"dtype":"BOOL","shape":[2],"data_offsets":[4,6]},
      "floats":{"dtype":"F32","shape":[2,1],"data_offsets":[6,14]},
      "brain":{"dtype":"BF16","shape":[1],"data_offsets":[14,16]},
      "half":{"dtype":"F16","shape":[1],"data_offsets":[16,18]},
      "none":{"dtype":"F32","shape":[0,7],"data_offsets":[18,18]},
      "double":{"dtype":"F64","shape":[],"data_offsets":[18,26]},
      "integers":{"dtype":"I32","shape":[3],"data_offsets":[26,38]}}   `;
    const data = [
      [1, 2, 255],
      [0xfe],
      [1, 0],
      [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1], // 1, -10
      [0x80, 0x3f], // 1 in bf16
      [0x00, 0x3c], // 1 in f16
      [0x18, 0x2d, 0x44, 0x54, 0xfb, 0x21, 0x09, 0x40], // pi
      [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x80],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
    ].flat();
    const reader = await openSafetensors(await fileOf(header, data));
    expect(reader.names()).toEqual([
      "bytes",
      "small",
      "mask",
      "floats",
      "brain",
      "half",
      "none",
      "double",
      "integers",
      "last",
    ]);
    expect([...reader.metadata]).toEqual([
      ["format", "pt"],
      ["note", 'a "b" {'],
    ]);
    expect(await reader.read("bytes")).toEqual(Uint8Array.of(1, 2, 255));
    expect(await reader.read("small")).toEqual(Int8Array.of(-2));
    expect(await reader.read("mask")).toEqual(Uint8Array.of(1, 0));
    expect(await reader.read("floats")).toEqual(Float32Array.of(1, -10));
    expect(await reader.read("brain")).toEqual(Uint16Array.of(0x3f80));
    expect(await reader.read("half")).toEqual(Uint16Array.of(0x3c00));
    expect(await reader.read("none")).toEqual(new Float32Array(0));
    expect(await reader.read("double")).toEqual(Float64Array.of(Math.PI));
    expect(await reader.read("integers")).toEqual(Int32Array.of(1, -1, -2147483648));
    expect(await reader.read("last")).toEqual(Int32Array.of(-1, 2147483647));
    expect(reader.info("floats")).toEqual({ dtype: "f32", shape: [2, 1], byteLength: 8 });
    expect(reader.info("brain").dtype).toBe("bf16");
    expect(reader.info("last")).toEqual({ dtype: "i32", shape: [2], byteLength: 8 });
    const around = new Uint8Array(11);
    await reader.readInto("last", around.subarray(1, 9));
    expect([...around]).toEqual([0, 255, 255, 255, 255, 255, 255, 255, 127, 0, 0]);
    await reader.readInto("floats", around.subarray(3));
    expect([...around]).toEqual([0, 255, 255, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1]);
    await expect(reader.readInto("floats", new Uint8Array(7))).rejects.toThrow(
      /has 8 bytes, its destination 7/,
    );
    await reader.close();
  });

  test("of no tensors is valid", async () => {
    const reader = await openSafetensors(await fileOf("{}"));
    expect(reader.names()).toEqual([]);
    await reader.close();
  });

  test("may name a tensor after a property that every object has", async () => {
    const tensor = (at: number) => `{"dtype":"U8","shape":[1],"data_offsets":[${at},${at + 1}]}`;
    const path = await fileOf(`{"__proto__":${tensor(0)},"constructor":${tensor(1)}}`, [5, 6]);
    const reader = await openSafetensors(path);
    expect(await reader.read("__proto__")).toEqual(Uint8Array.of(5));
    expect(await reader.read("constructor")).toEqual(Uint8Array.of(6));
    expect(reader.has("toString")).toBe(false);
    await reader.close();
  });
});

const f32 = (begin: number, end: number, shape = "[1]") =>
  `{"dtype":"F32","shape":${shape},"data_offsets":[${begin},${end}]}`;

describe("a hostile or broken file is refused by name:", () => {
  const cases: [
    title: string,
    header: string | Uint8Array,
    dataBytes: number,
    code: string,
    message: RegExp,
  ][] = [
    ["no JSON", "no json", 0, "safetensors_not_json", /not a JSON object[\s\S]*where: .*hand\.safetensors/],
    ["an empty header", "", 0, "safetensors_not_json", /not a JSON object/],
    ["an array", "[]", 0, "safetensors_not_json", /received: \[\]/],
    ["JSON cut short", '{"a', 0, "safetensors_not_json", /not a JSON object/],
    [
      "bytes that are no UTF-8",
      Uint8Array.of(0x7b, 0xff, 0x7d),
      0,
      "safetensors_not_json",
      /not a JSON object/,
    ],
    ["a byte order mark", "\ufeff{}", 0, "safetensors_not_json", /not a JSON object/],
    ["deep nesting", `{"a":${"[".repeat(100_000)}`, 0, "safetensors_not_json", /nested too deeply/],
    [
      "metadata that is no strings",
      '{"__metadata__":{"a":1}}',
      0,
      "safetensors_metadata",
      /received: "a": 1/,
    ],
    ["metadata that is a list", '{"__metadata__":[]}', 0, "safetensors_metadata", /received: \[\]/],
    [
      "an entry that is a number",
      '{"w":5}',
      0,
      "safetensors_entry",
      /tensor "w" of .*hand[\s\S]*received: 5/,
    ],
    [
      "an unknown dtype",
      '{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}',
      4,
      "safetensors_dtype",
      /tensor "w" of .*hand[\s\S]*expected: .*BF16[\s\S]*received: "F33"/,
    ],
    ["no dtype", '{"w":{"shape":[1],"data_offsets":[0,4]}}', 4, "safetensors_dtype", /received: nothing/],
    [
      "a dtype of every object",
      '{"w":{"dtype":"toString","shape":[1],"data_offsets":[0,4]}}',
      4,
      "safetensors_dtype",
      /"toString"/,
    ],
    [
      "a negative dimension",
      `{"w":${f32(0, 4, "[-1]")}}`,
      4,
      "safetensors_shape",
      /tensor "w"[\s\S]*received: \[-1\]/,
    ],
    ["a fractional dimension", `{"w":${f32(0, 4, "[1.5]")}}`, 4, "safetensors_shape", /received: \[1\.5\]/],
    ["a shape that is a string", `{"w":${f32(0, 4, '"4"')}}`, 4, "safetensors_shape", /received: "4"/],
    ["offsets the wrong way round", `{"w":${f32(4, 0)}}`, 4, "safetensors_offsets", /received: \[4,0\]/],
    ["negative offsets", `{"w":${f32(-4, 0)}}`, 4, "safetensors_offsets", /received: \[-4,0\]/],
    ["no offsets", '{"w":{"dtype":"F32","shape":[1]}}', 4, "safetensors_offsets", /received: nothing/],
    [
      "a shape that does not fit the bytes",
      `{"w":${f32(0, 8, "[3]")}}`,
      8,
      "safetensors_size",
      /tensor "w"[\s\S]*expected: 12 bytes for F32 \[3\][\s\S]*received: 8 bytes, from 0 to 8/,
    ],
    [
      "a shape beyond all memory",
      `{"w":${f32(0, 8, "[4294967296,4294967296]")}}`,
      8,
      "safetensors_size",
      /expected: impossibly many bytes/,
    ],
    [
      "a product that wraps around 64 bits",
      `{"w":${f32(0, 0, "[4294967296,4294967296,4]")}}`,
      0,
      "safetensors_size",
      /impossibly many/,
    ],
    [
      "overlapping tensors",
      `{"a":${f32(0, 8, "[2]")},"b":${f32(4, 12, "[2]")}}`,
      12,
      "safetensors_offsets",
      /overlap[\s\S]*tensor "b"[\s\S]*expected: to begin at byte 8, after "a"[\s\S]*received: bytes 4 to 12/,
    ],
    [
      "two tensors over the same bytes",
      `{"a":${f32(0, 4)},"b":${f32(0, 4)}}`,
      4,
      "safetensors_offsets",
      /overlap[\s\S]*tensor "b"/,
    ],
    [
      "a gap",
      `{"a":${f32(0, 4)},"b":${f32(8, 12)}}`,
      12,
      "safetensors_offsets",
      /gap[\s\S]*tensor "b"[\s\S]*byte 4/,
    ],
    ["a gap at the start", `{"a":${f32(4, 8)}}`, 8, "safetensors_offsets", /gap[\s\S]*byte 0, at the start/],
    [
      "bytes after the last tensor",
      `{"a":${f32(0, 4)}}`,
      5,
      "safetensors_offsets",
      /belong to no tensor[\s\S]*expected: 4 bytes[\s\S]*received: 5 bytes/,
    ],
    [
      "a file cut short",
      `{"a":${f32(0, 4)},"b":${f32(4, 12, "[2]")}}`,
      11,
      "safetensors_truncated",
      /tensor "b"[\s\S]*expected: bytes 4 to 12[\s\S]*received: a file with 11 bytes/,
    ],
    [
      "offsets far outside",
      `{"w":{"dtype":"U8","shape":[9007199254740991],"data_offsets":[0,9007199254740991]}}`,
      4,
      "safetensors_truncated",
      /tensor "w"/,
    ],
    [
      "a tensor named twice",
      `{"a":${f32(0, 4)},"b":${f32(4, 8)},"a":${f32(0, 4)}}`,
      8,
      "safetensors_duplicate",
      /tensor "a" of .*hand[\s\S]*received: "a" twice/,
    ],
    [
      "a tensor named twice in other spelling",
      `{"a\\\\":${f32(0, 4)}, "\\u0061\\\\":${f32(4, 8)}}`,
      8,
      "safetensors_duplicate",
      /twice/,
    ],
    [
      "a shape given twice",
      '{"a":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,2]}}',
      2,
      "safetensors_duplicate",
      /"shape" twice/,
    ],
  ];
  test.each(cases)("%s", async (_, header, dataBytes, code, message) => {
    const error = await failureOf(await fileOf(header, new Array<number>(dataBytes).fill(0)));
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  test.each([
    [
      "longer than the file",
      3n,
      /longer than its file[\s\S]*at most 2 bytes, in a file of 10[\s\S]*claims 3 bytes/,
    ],
    ["of all 64 bits", 2n ** 64n - 1n, /claims 18446744073709551615 bytes/],
  ])("a header %s", async (_, length, message) => {
    const error = await failureOf(await fileOf("{}", [], length));
    expect(error.message).toMatch(message);
    expect(error.code).toBe("safetensors_header_length");
  });

  test("a header of a sparse file of a terabyte, without reading it", async () => {
    const path = await fileOf("{}", [], 2n ** 39n);
    await truncate(path, 2 ** 40);
    expect((await failureOf(path)).message).toMatch(/too long[\s\S]*expected: at most 100000000 bytes/);
  });

  test("a file shorter than 8 bytes, an empty one, a missing one, a folder", async () => {
    const path = await fileOf("{}");
    await truncate(path, 7);
    expect((await failureOf(path)).message).toMatch(/too short[\s\S]*received: 7 bytes/);
    await truncate(path, 0);
    expect((await failureOf(path)).code).toBe("safetensors_truncated");
    expect((await failureOf(join(folder, "absent"))).message).toMatch(/does not exist[\s\S]*absent/);
    expect((await failureOf(folder)).code).toBe("unreadable_file");
  });
});

test("a tensor that is not there is refused with the nearest name", async () => {
  const reader = await openSafetensors(await fileOf(`{"model.norm.weight":${f32(0, 4)}}`, [0, 0, 0, 0]));
  await expect(reader.read("model.norm.wieght")).rejects.toThrow(/did you mean "model.norm.weight"/);
  expect(() => reader.info("zzz")).toThrow(/tensor "zzz" of .*hand/);
  await reader.close();
});

test("a dtype that is not read is refused by name, and the other tensors are read", async () => {
  const header = `{"scale":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
    "w":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`;
  const reader = await openSafetensors(await fileOf(header, [1, 2, 3]));
  expect(() => reader.info("scale")).toThrow(/tensor "scale"[\s\S]*received: F8_E4M3/);
  await expect(reader.read("scale")).rejects.toThrow(FileFormatError);
  expect(await reader.read("w")).toEqual(Uint8Array.of(3));
  await reader.close();
});

test.each([
  ["2147483648", [0, 0, 0, 0x80, 0, 0, 0, 0]],
  ["-2147483649", [0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff]],
])("the 64-bit integer %s is refused", async (value, bytes) => {
  const header = '{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}';
  const reader = await openSafetensors(await fileOf(header, bytes));
  await expect(reader.read("ids")).rejects.toThrow(
    new RegExp(`element 0 of tensor "ids"[\\s\\S]*received: ${value}`),
  );
  await reader.close();
});

test("a file that shrinks while it is open is refused", async () => {
  const path = await fileOf(`{"w":${f32(0, 4)}}`, [0, 0, 0, 0]);
  const reader = await openSafetensors(path);
  await truncate(path, 20);
  await expect(reader.read("w")).rejects.toThrow(/became shorter/);
  await reader.close();
});
