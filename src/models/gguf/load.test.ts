import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createNativeBackend, createReferenceBackend } from "../../backends.ts";
import { InternalError, SlipstreamError } from "../../base/errors.ts";
import { PhiloxStream } from "../../base/random.ts";
import { elementCount } from "../../base/shape.ts";
import {
  type BlockTypeName,
  type GgufEntry,
  type GgufSource,
  openGguf,
  quantizeBlocks,
  type TensorTypeName,
  tensorBytes,
  tensorTypes,
  writeGguf,
} from "../../checkpoint/gguf/index.ts";
import { openSafetensors } from "../../checkpoint/index.ts";
import { generate } from "../generate.ts";
import { loadModelWith } from "../load.ts";
import { saveModelFolder } from "../save.ts";
import { openModelSource } from "../source.ts";
import { saveGguf } from "./save.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-gguf-load-"));
afterAll(() => rmSync(folder, { recursive: true }));
const backend = createNativeBackend();

/** The largest difference, relative to the largest expected value. */
function error(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let difference = 0;
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
  }
  return difference / largest;
}

const noTokenizer = new Map<string, GgufEntry>([["tokenizer.ggml.model", { type: "string", value: "none" }]]);
async function convert(from: string, to: string, type: TensorTypeName): Promise<void> {
  await using source = await openModelSource(from);
  await saveGguf(to, source, { type, tokenizer: noTokenizer });
}

const golden = join(dirname(fileURLToPath(import.meta.url)), "../../../test/golden/models");

describe.each(readdirSync(golden))("%s through a GGUF file against PyTorch", (family) => {
  const original = join(golden, family);
  const path = join(folder, `${family}.gguf`);
  const expected = JSON.parse(readFileSync(join(original, "golden.json"), "utf8")) as {
    sequences: number[][];
    greedy: { prompt: number[]; ids: number[] };
  };
  beforeAll(async () => {
    await convert(original, path, "F32");
  });

  test("logits and greedy tokens", async () => {
    const model = await loadModelWith(backend, path);
    await using reader = await openSafetensors(join(original, "golden.safetensors"));
    for (const [index, sequence] of expected.sequences.entries()) {
      const logits = await (await model.forward([sequence])).data();
      expect(error(logits, await reader.read(`logits.${index}`))).toBeLessThan(2e-4);
    }
    const ids: number[] = [];
    for await (const id of generate(model, expected.greedy.prompt, { maxTokens: 16 })) ids.push(id);
    expect(ids).toEqual(expected.greedy.ids);
  });

  test("and back into a folder: the weights bit for bit", async () => {
    const back = join(folder, `${family}-back`);
    await using source = await openModelSource(path);
    const { config, parameters } = source;
    const valuesOf = (name: string): Promise<Float32Array> => source.read(parameters.get(name)!);
    await saveModelFolder(back, { family: source.family, config, parameters, dtype: "f32", valuesOf });
    await using before = await openSafetensors(join(original, "model.safetensors"));
    await using after = await openSafetensors(join(back, "model.safetensors"));
    expect(after.names().sort()).toEqual(before.names().sort());
    for (const name of before.names()) expect(await after.read(name)).toEqual(await before.read(name));
    const model = await loadModelWith(backend, back);
    await using reader = await openSafetensors(join(original, "golden.safetensors"));
    const logits = await (await model.forward([expected.sequences[2]!])).data();
    expect(error(logits, await reader.read("logits.2"))).toBeLessThan(2e-4);
  });
});

/** A Llama whose rows are whole blocks of every type. */
const small = { dim: 256, layers: 1, heads: 4, groups: 2, ffn: 512, vocabulary: 96 };
/** Normal numbers, from which every tensor takes a stretch that begins elsewhere. */
const random = new PhiloxStream(3);
const normal = Float32Array.from({ length: small.ffn * small.dim + 4096 }, () => random.nextNormal());

type TypeOf = (name: string) => TensorTypeName;

async function writeLlama(
  path: string,
  typeOf: TypeOf,
  change: { metadata?: [string, GgufEntry][]; tensors?: (tensors: GgufSource[]) => GgufSource[] } = {},
): Promise<void> {
  const { dim, layers, heads, groups, ffn, vocabulary } = small;
  let drawn = 0;
  const draw = (length: number): Float32Array => {
    drawn = (drawn + 997) % 4096;
    return normal.subarray(drawn, drawn + length);
  };
  const matrix = (name: string, rows: number, columns: number): GgufSource => {
    const type = typeOf(name);
    const values = draw(rows * columns).map((value) => 0.05 * value);
    const bytes = new Uint8Array(tensorBytes(type, values.length));
    if (type === "F32") bytes.set(new Uint8Array(values.buffer));
    else quantizeBlocks(type as BlockTypeName, values, bytes);
    return { name, type, shape: [rows, columns], data: () => bytes };
  };
  const norm = (name: string): GgufSource => {
    const values = draw(dim).map((value) => 1 + 0.1 * value);
    return { name, type: "F32", shape: [dim], data: () => new Uint8Array(values.buffer) };
  };
  const tensors = [
    matrix("token_embd.weight", vocabulary, dim),
    norm("output_norm.weight"),
    matrix("output.weight", vocabulary, dim),
    ...Array.from({ length: layers }, (_, layer) => [
      norm(`blk.${layer}.attn_norm.weight`),
      matrix(`blk.${layer}.attn_q.weight`, dim, dim),
      matrix(`blk.${layer}.attn_k.weight`, (groups * dim) / heads, dim),
      matrix(`blk.${layer}.attn_v.weight`, (groups * dim) / heads, dim),
      matrix(`blk.${layer}.attn_output.weight`, dim, dim),
      norm(`blk.${layer}.ffn_norm.weight`),
      matrix(`blk.${layer}.ffn_gate.weight`, ffn, dim),
      matrix(`blk.${layer}.ffn_up.weight`, ffn, dim),
      matrix(`blk.${layer}.ffn_down.weight`, dim, ffn),
    ]).flat(),
  ];
  const uint32 = (value: number): GgufEntry => ({ type: "uint32", value });
  const metadata = new Map<string, GgufEntry>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["llama.context_length", uint32(128)],
    ["llama.embedding_length", uint32(dim)],
    ["llama.block_count", uint32(layers)],
    ["llama.feed_forward_length", uint32(ffn)],
    ["llama.attention.head_count", uint32(heads)],
    ["llama.attention.head_count_kv", uint32(groups)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "float32", value: 1e-5 }],
    ...(change.metadata ?? []),
  ]);
  await writeGguf(path, metadata, change.tensors?.(tensors) ?? tensors);
}

const tokens = [5, 17, 3, 90, 41, 8, 66, 2, 77, 30];

describe("quantized weights stay quantized", () => {
  // The same weights in floats are the yardstick: what is left is the rounding of activations to int8.
  test.each<[string, TypeOf]>([
    ["Q8_0", () => "Q8_0"],
    ["Q4_0", () => "Q4_0"],
    ["Q4_K with Q6_K", (name) => (/output.weight|attn_v|ffn_down/.test(name) ? "Q6_K" : "Q4_K")],
    ["Q5_K", () => "Q5_K"],
    ["Q6_K and F32", (name) => (name.includes("ffn") ? "F32" : "Q6_K")],
  ])("%s", async (label, typeOf) => {
    const path = join(folder, `${label}.gguf`);
    await writeLlama(path, typeOf);
    const packed = await loadModelWith(backend, path);
    const floats = await loadModelWith(backend, path, { dequantize: true });
    expect(floats.parts.quantized?.size).toBe(0);
    for (const [name, matrix] of packed.parts.quantized!) {
      expect(packed.parts.weights.get(name)).toBeInstanceOf(Uint8Array);
      expect(packed.parts.parameters.get(name)!.shape).toEqual([matrix.rows, matrix.columns]);
    }
    const expected = await (await floats.forward([tokens])).data();
    expect(error(await (await packed.forward([tokens])).data(), expected)).toBeLessThan(0.03);
    // The reference backend computes the same integers in float64.
    const reference = await loadModelWith(createReferenceBackend(), path);
    const few = [tokens.slice(0, 3)];
    expect(
      error(await (await packed.forward(few)).data(), await (await reference.forward(few)).data()),
    ).toBeLessThan(0.01);
    const ids: number[] = [];
    for await (const id of generate(packed, tokens, { maxTokens: 4 })) ids.push(id);
    expect(ids).toHaveLength(4);
    await expect(packed.lossAndGradients([tokens])).rejects.toThrow(
      /no gradients[\s\S]*without quantization/,
    );
    const again = loadModelWith(backend, path, { quantization: { kind: "int8" } });
    await expect(again).rejects.toThrow(/quantized already[\s\S]*leave out --quant/);
  });
});

test("floats of a file are quantized at load, and q and k rows are where they belong", async () => {
  const path = join(folder, "f32.gguf");
  await writeLlama(path, () => "F32");
  const floats = await loadModelWith(backend, path);
  const expected = await (await floats.forward([tokens])).data();
  for (const [quantization, bound] of [
    [{ kind: "int8" }, 0.06],
    [{ kind: "int4", group: 32 }, 0.2],
    [{ kind: "int4", group: 128 }, 0.25],
  ] as const) {
    const model = await loadModelWith(backend, path, { quantization });
    expect(model.parts.quantized!.size).toBe(2 + 7 * small.layers);
    const actual = await (await model.forward([tokens])).data();
    expect(error(actual, expected)).toBeLessThan(bound);
    expect(error(actual, expected)).toBeGreaterThan(1e-4);
  }
});

describe("refuses", () => {
  const f32: TypeOf = () => "F32";
  const string = (value: string): GgufEntry => ({ type: "string", value });
  const uint32 = (value: number): GgufEntry => ({ type: "uint32", value });
  const without = (name: string) => (tensors: GgufSource[]) =>
    tensors.filter((tensor) => tensor.name !== name);
  const extra: GgufSource = {
    name: "blk.0.odd.weight",
    type: "F32",
    shape: [1],
    data: () => new Uint8Array(4),
  };
  test.each<[string, Parameters<typeof writeLlama>[2], RegExp]>([
    [
      "another architecture",
      { metadata: [["general.architecture", string("lama")]] },
      /not supported[\s\S]*llama, qwen2, qwen3, gpt2[\s\S]*"lama"[\s\S]*nearest is "llama"/,
    ],
    [
      "experts",
      { metadata: [["llama.expert_count", uint32(8)]] },
      /"llama.expert_count"[\s\S]*a dense model[\s\S]*8/,
    ],
    [
      "a scaling that is not known",
      { metadata: [["llama.rope.scaling.type", string("yarn")]] },
      /none or linear[\s\S]*"yarn"/,
    ],
    [
      "heads of two sizes",
      { metadata: [["llama.attention.value_length", uint32(32)]] },
      /value_length"[\s\S]*64, the size of a head[\s\S]*32/,
    ],
    [
      "layers without end",
      { metadata: [["llama.block_count", uint32(2 ** 32 - 1)]] },
      /block_count"[\s\S]*at most 12, the number of tensors[\s\S]*4294967295/,
    ],
    [
      "no heads",
      { metadata: [["llama.attention.head_count", string("4")]] },
      /head_count"[\s\S]*whole number[\s\S]*"4"/,
    ],
    [
      "a missing tensor",
      { tensors: without("blk.0.ffn_up.weight") },
      /missing: blk\.0\.ffn_up\.weight \[512, 256\]/,
    ],
    ["an extra tensor", { tensors: (tensors) => [...tensors, extra] }, /extra: blk\.0\.odd\.weight/],
    [
      "another shape than the metadata say",
      { metadata: [["llama.feed_forward_length", uint32(500)]] },
      /wrong shape: blk\.0\.ffn_gate\.weight, expected \[500, 256\], received \[512, 256\]/,
    ],
    [
      "an embedding length that is absurd",
      { metadata: [["llama.embedding_length", uint32(0)]] },
      /hidden_size: expected a positive integer, received 0/,
    ],
  ])("%s", async (label, change, message) => {
    const path = join(folder, `refused ${label}.gguf`);
    await writeLlama(path, f32, change);
    await expect(loadModelWith(backend, path)).rejects.toThrow(message);
  });
});

test("random damage to a whole model's file ends in a message, never in a fault of the program or a hang", async () => {
  const path = join(folder, "damaged.gguf");
  const good = join(folder, "good.gguf");
  await convert(join(golden, "llama"), good, "F32");
  const whole = readFileSync(good);
  const headerBytes = whole.indexOf("output_norm.weight") + 100;
  const change = fc.tuple(fc.nat(headerBytes - 1), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 127, 255)));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      writeFileSync(path, bytes);
      try {
        await loadModelWith(backend, path);
      } catch (cause) {
        expect(cause).toBeInstanceOf(SlipstreamError);
        expect(cause).not.toBeInstanceOf(InternalError);
      }
    }),
    { numRuns: 400 },
  );
});

test("types that rows do not fit fall back, and four bits spare the output", async () => {
  const path = join(folder, "fallback.gguf");
  // Rows of 24 and 40: no blocks fit.
  await convert(join(golden, "llama"), path, "Q4_0");
  await using odd = await openGguf(path);
  expect(new Set([...odd.tensors.values()].map(({ type }) => type))).toEqual(new Set(["F32", "F16"]));
  const source = join(folder, "f32.gguf");
  if (!existsSync(source)) await writeLlama(source, () => "F32");
  const four = join(folder, "four.gguf");
  await convert(source, four, "Q4_K");
  await using file = await openGguf(four);
  expect(file.tensor("output.weight").type).toBe("Q6_K");
  expect(file.tensor("blk.0.attn_q.weight").type).toBe("Q4_K");
  expect(file.tensor("output_norm.weight").type).toBe("F32");
  const bytes = [...file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  const plain = [...file.tensors.values()].reduce((sum, { shape }) => sum + 4 * elementCount(shape), 0);
  expect(bytes).toBeLessThan((plain * tensorTypes.Q6_K.bytes) / 256 / 4);
});

test("file names in capitals are GGUF files too", async () => {
  const path = join(folder, "f32.gguf");
  if (!existsSync(path)) await writeLlama(path, () => "F32");
  copyFileSync(path, join(folder, "COPY.GGUF"));
  expect((await loadModelWith(backend, join(folder, "COPY.GGUF"))).facts.layers).toBe(small.layers);
});
