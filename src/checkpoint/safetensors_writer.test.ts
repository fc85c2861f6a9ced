import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bytesPerElement, type DType, dtypes, type TensorData, viewOf } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";
import { bytesOf } from "./file_writer.ts";
import { openModelWeights } from "./model_folder.ts";
import { openSafetensors } from "./safetensors_reader.ts";
import { type TensorSource, writeSafetensors } from "./safetensors_writer.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

function source(name: string, dtype: DType, shape: readonly number[], data: TensorData): TensorSource {
  return { name, dtype, shape, data: () => data };
}

const tensor = fc
  .record({
    name: fc
      .string({ minLength: 1, maxLength: 12, unit: "grapheme" })
      .filter((name) => name !== "__metadata__"),
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat(5), { maxLength: 4 }),
  })
  .chain(({ name, dtype, shape }) => {
    const bytes = shape.reduce((product, dimension) => product * dimension, bytesPerElement(dtype));
    return fc
      .uint8Array({ minLength: bytes, maxLength: bytes })
      .map((data) => ({ name, dtype, shape, bytes: new Uint8Array(data) }));
  });

describe("what is written is read back bit for bit", () => {
  const lists = fc.uniqueArray(tensor, { maxLength: 12, selector: ({ name }) => name });

  test("by the reader here, whatever the shards", async () => {
    await fc.assert(
      fc.asyncProperty(lists, fc.integer({ min: 1, max: 3000 }), async (tensors, maxShardBytes) => {
        await rm(folder, { recursive: true });
        await writeSafetensors(
          folder,
          tensors.map(({ name, dtype, shape, bytes }) =>
            source(name, dtype, shape, viewOf(dtype, bytes.buffer)),
          ),
          { maxShardBytes },
        );
        const reader = await openModelWeights(folder);
        try {
          expect(reader.names().toSorted()).toEqual(tensors.map(({ name }) => name).toSorted());
          for (const { name, dtype, shape, bytes } of tensors) {
            expect(reader.info(name)).toEqual({ dtype, shape, byteLength: bytes.length });
            expect(Buffer.compare(bytesOf(await reader.read(name)), bytes)).toBe(0);
            const destination = new Uint8Array(bytes.length);
            await reader.readInto(name, destination);
            expect(Buffer.compare(destination, bytes)).toBe(0);
          }
        } finally {
          await reader.close();
        }
      }),
      { numRuns: 100 },
    );
  });

  test("by a few lines that know the format alone; every tensor is aligned", async () => {
    await fc.assert(
      fc.asyncProperty(lists, async (tensors) => {
        await writeSafetensors(
          folder,
          tensors.map(({ name, dtype, shape, bytes }) =>
            source(name, dtype, shape, viewOf(dtype, bytes.buffer)),
          ),
        );
        const file = await readFile(join(folder, "model.safetensors"));
        const headerBytes = file.readUInt32LE(0);
        const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
          string,
          { dtype: string; shape: number[]; data_offsets: [number, number] }
        >;
        expect(headerBytes % 8).toBe(0);
        expect(header.__metadata__).toEqual({ format: "pt" });
        expect(Object.keys(header)).toHaveLength(tensors.length + 1);
        for (const { name, dtype, shape, bytes } of tensors) {
          const entry = Object.getOwnPropertyDescriptor(header, name)!.value as (typeof header)[string];
          const [begin, end] = entry.data_offsets;
          expect({ dtype: entry.dtype, shape: entry.shape }).toEqual({ dtype: dtype.toUpperCase(), shape });
          expect(begin % bytesPerElement(dtype)).toBe(0);
          expect(Buffer.compare(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end), bytes)).toBe(
            0,
          );
        }
      }),
      { numRuns: 50 },
    );
  });
});

test("the bytes of a small file are exactly those of the format", async () => {
  await writeSafetensors(folder, [source("a", "f32", [2], Float32Array.of(1, -2))]);
  const json = '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
  const padded = json.padEnd(88, " ");
  const expected = [88, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from(padded), 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
  expect([...(await readFile(join(folder, "model.safetensors")))]).toEqual(expected);
});

describe("shards", () => {
  const floats = (name: string, count: number) =>
    source(name, "f32", [count], new Float32Array(count).fill(count));

  test("follow the order and the size, under Hugging Face's names", async () => {
    const tensors = [floats("a", 10), floats("b", 15), floats("c", 1), floats("big", 100), floats("d", 2)];
    const written = await writeSafetensors(folder, tensors, { maxShardBytes: 100 });
    // 40 + 60 fill the first shard; 4 + 400 are too much for one, and so are 400 + 8.
    const shard = (number: number) => `model-0000${number}-of-00004.safetensors`;
    expect(written).toEqual({
      files: [shard(1), shard(2), shard(3), shard(4), "model.safetensors.index.json"],
      tensorBytes: 512,
    });
    const index: unknown = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));
    expect(index).toEqual({
      metadata: { total_size: 512 },
      weight_map: { a: shard(1), b: shard(1), c: shard(2), big: shard(3), d: shard(4) },
    });
  });

  test("replace what stood there before, both ways", async () => {
    await writeFile(join(folder, "config.json"), "{}");
    await writeSafetensors(folder, [floats("a", 10), floats("b", 10)], { maxShardBytes: 40 });
    await writeSafetensors(folder, [floats("c", 3)]);
    expect((await readdir(folder)).toSorted()).toEqual(["config.json", "model.safetensors"]);
    await writeSafetensors(folder, [floats("d", 10), floats("e", 10)], { maxShardBytes: 40 });
    expect((await readdir(folder)).toSorted()).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
  });
});

describe("a write that fails leaves the earlier weights and nothing else", () => {
  const good = source("w", "f32", [2], Float32Array.of(1, 2));
  async function expectIntact(): Promise<void> {
    expect(await readdir(folder)).toEqual(["model.safetensors"]);
    const reader = await openSafetensors(join(folder, "model.safetensors"));
    expect(await reader.read("w")).toEqual(Float32Array.of(1, 2));
    await reader.close();
  }

  test("where the data cannot be had", async () => {
    await writeSafetensors(folder, [good]);
    const bad: TensorSource = { ...good, name: "x", data: () => Promise.reject(new Error("no data")) };
    await expect(writeSafetensors(folder, [good, bad], { maxShardBytes: 8 })).rejects.toThrow("no data");
    await expectIntact();
  });

  test.each<[string, TensorSource, RegExp]>([
    [
      "too few elements",
      source("x", "f32", [3], Float32Array.of(1, 2)),
      /Float32Array of 3 elements for f32 \[3\]/,
    ],
    ["another type", source("x", "f32", [2], Int32Array.of(1, 2)), /received: Int32Array of 2/],
  ])("where the data has %s", async (_, bad, message) => {
    await writeSafetensors(folder, [good]);
    const failed = writeSafetensors(folder, [good, bad]);
    await expect(failed).rejects.toThrow(ShapeError);
    await expect(failed).rejects.toThrow(message);
    await expectIntact();
  });

  test("where two tensors have one name", async () => {
    await writeSafetensors(folder, [good]);
    await expect(writeSafetensors(folder, [good, good])).rejects.toThrow(
      /tensor "w" of .* has a name that is taken/,
    );
    await expectIntact();
  });
});

test("a view of several chunks over shared memory is written from where it stands", async () => {
  const elements = 3 * 2 ** 20 + 5;
  const shared = new Float32Array(new SharedArrayBuffer(4 * elements + 8), 4, elements);
  for (let i = 0; i < elements; i++) shared[i] = i;
  await writeSafetensors(folder, [source("w", "f32", [elements], shared)]);
  const reader = await openSafetensors(join(folder, "model.safetensors"));
  const read = (await reader.read("w")) as Float32Array;
  expect(read.findIndex((value, i) => value !== i)).toBe(-1);
  const destination = new Float32Array(new SharedArrayBuffer(4 * elements));
  await reader.readInto("w", bytesOf(destination));
  expect(destination.findIndex((value, i) => value !== i)).toBe(-1);
  await reader.close();
});
