import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { createNativeBackend } from "../../backends.ts";
import { fromF16Bits, toF16Bits } from "../../base/dtype.ts";
import { PhiloxStream } from "../../base/random.ts";
import { openSafetensors, type TensorSource, writeSafetensors } from "../../checkpoint/index.ts";
import { loadModelWith } from "../load.ts";
import { openModelSource } from "../source.ts";
import { dequantize, packNibbles, quantizeGroups, quantizeRows, unpackNibbles } from "./codec.ts";
import { writeCompressed } from "./save.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-compressed-"));
afterAll(() => rmSync(folder, { recursive: true }));
const golden = join(dirname(fileURLToPath(import.meta.url)), "../../../test/golden/models");
const backend = createNativeBackend();
const half = (value: number): number => fromF16Bits(toF16Bits(value));

test("eight numbers of four bits a word, from the lowest bits up, each plus 8", () => {
  const values = Int8Array.of(-8, -7, 0, 1, 7, 2, 3, -1, 5, 5, 5, 5, 5, 5, 5, -8);
  const packed = packNibbles({
    bits: 4,
    rows: 2,
    columns: 8,
    group: 8,
    values,
    scales: Float32Array.of(1, 1),
  });
  // -8 is 0, -7 is 1, 0 is 8, ...: written by hand, the last number in the highest bits.
  expect([...packed].map((word) => (word >>> 0).toString(16))).toEqual(["7baf9810", "ddddddd"]);
  expect(unpackNibbles(packed, 2, 8)).toEqual(values);
});

test("int8 a row: the largest magnitude becomes 127, what is between the nearest", () => {
  const matrix = Float32Array.of(1.27, -0.64, 0.006, 0, 0, 0, 254, -254, 3);
  const { values, scales } = quantizeRows(matrix, 3, 3);
  expect([...values]).toEqual([127, -64, 1, 0, 0, 0, 127, -127, 2]);
  expect([...scales]).toEqual([...Float32Array.of(1.27 / 127, 0, 2)]);
});

test("int4 in groups is no worse than rounding with the plain scale", () => {
  const random = new PhiloxStream(2);
  const matrix = Float32Array.from({ length: 4 * 64 }, () => random.nextNormal());
  const quantized = quantizeGroups(matrix, { rows: 4, columns: 64, group: 32 }, half);
  const back = dequantize(quantized);
  for (let group = 0; group < 8; group++) {
    const part = matrix.subarray(32 * group, 32 * group + 32);
    const extreme = part.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    const scale = half(extreme / -8);
    const plain = part.map((value) => Math.max(-8, Math.min(7, Math.round(value / scale))) * scale);
    const squares = (values: Float32Array): number =>
      values.reduce((sum, value, i) => sum + (value - part[i]!) ** 2, 0);
    expect(squares(back.subarray(32 * group, 32 * group + 32))).toBeLessThanOrEqual(squares(plain) + 1e-12);
    expect(half(quantized.scales[group]!)).toBe(quantized.scales[group]);
  }
});

async function write(name: string, scheme: Parameters<typeof writeCompressed>[2]): Promise<string> {
  const target = join(folder, name);
  await using source = await openModelSource(model);
  await writeSafetensors(target, []);
  await writeCompressed(target, source, scheme);
  return target;
}

/** A Llama of 64-wide rows: the golden models' do not divide into groups. */
const model = join(folder, "model");
const config = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 80,
  max_position_embeddings: 64,
};
const random = new PhiloxStream(9);
function tensor(name: string, shape: number[]): TensorSource {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  const draw = (): number => (shape.length === 1 ? 1 : 0.1 * random.nextNormal());
  const values = Float32Array.from({ length: size }, draw);
  return { name, shape, dtype: "f32", data: () => values };
}
const sources = [
  tensor("model.embed_tokens.weight", [80, 64]),
  ...[0, 1].flatMap((layer) =>
    (
      [
        ["input_layernorm", [64]],
        ["post_attention_layernorm", [64]],
        ["self_attn.q_proj", [64, 64]],
        ["self_attn.k_proj", [32, 64]],
        ["self_attn.v_proj", [32, 64]],
        ["self_attn.o_proj", [64, 64]],
        ["mlp.gate_proj", [96, 64]],
        ["mlp.up_proj", [96, 64]],
        ["mlp.down_proj", [64, 96]],
      ] as const
    ).map(([part, shape]) => tensor(`model.layers.${layer}.${part}.weight`, [...shape])),
  ),
  tensor("model.norm.weight", [64]),
  tensor("lm_head.weight", [80, 64]),
];
await writeSafetensors(model, sources);
writeFileSync(join(model, "config.json"), JSON.stringify(config));

const tokens = [3, 40, 7, 71, 22, 9];
function error(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
  }
  return difference / largest;
}

describe.each([
  ["int8", { kind: "int8" }, { num_bits: 8, strategy: "channel", group_size: null }, 0.08],
  ["int4", { kind: "int4", group: 32 }, { num_bits: 4, strategy: "group", group_size: 32 }, 0.4],
] as const)("a folder in %s", (name, scheme, weights, bound) => {
  const target = write(name, scheme);
  const weight = "model.layers.1.self_attn.q_proj.weight";

  test("is laid out as compressed-tensors has it", async () => {
    const written = JSON.parse(readFileSync(join(await target, "config.json"), "utf8")) as {
      quantization_config: Record<string, unknown>;
    };
    expect(written.quantization_config).toMatchObject({
      quant_method: "compressed-tensors",
      format: name === "int8" ? "int-quantized" : "pack-quantized",
      ignore: ["lm_head"],
      config_groups: {
        group_0: { targets: ["Linear"], weights: { ...weights, symmetric: true, type: "int" } },
      },
    });
    await using reader = await openSafetensors(join(await target, "model.safetensors"));
    if (name === "int8") {
      expect(reader.info(weight)).toMatchObject({ dtype: "i8", shape: [64, 64] });
      expect(reader.info(`${weight}_scale`).shape).toEqual([64, 1]);
    } else {
      expect(reader.info(`${weight}_packed`)).toMatchObject({ dtype: "i32", shape: [64, 8] });
      expect(reader.info(`${weight}_scale`).shape).toEqual([64, 2]);
      expect([...(await reader.read(`${weight}_shape`))]).toEqual([64, 64]);
    }
    expect(reader.info("lm_head.weight").dtype).toBe("f32");
  });

  test("computes quantized what its floats compute", async () => {
    const packed = await loadModelWith(backend, await target);
    const floats = await loadModelWith(backend, await target, { dequantize: true });
    expect(packed.parts.quantized!.size).toBe(14);
    expect(floats.parts.quantized).toBeUndefined();
    const expected = await (await floats.forward([tokens])).data();
    // The weights are the same; activations are int8.
    expect(error(await (await packed.forward([tokens])).data(), expected)).toBeLessThan(0.08);
    const exact = await (await (await loadModelWith(backend, model)).forward([tokens])).data();
    expect(error(expected, exact)).toBeLessThan(bound);
    expect(error(expected, exact)).toBeGreaterThan(1e-4);
    const again = loadModelWith(backend, await target, { quantization: { kind: "int8" } });
    await expect(again).rejects.toThrow("quantized already");
  });
});

describe("refuses", () => {
  test("groups that no matrix has", async () => {
    await expect(write("none", { kind: "int4", group: 128 })).rejects.toThrow(
      /whole groups[\s\S]*multiple of 128[\s\S]*64, 96 inputs/,
    );
  });

  test("models that store weights the other way round", async () => {
    await using source = await openModelSource(join(golden, "gpt2"));
    await expect(writeCompressed(folder, source, { kind: "int8" })).rejects.toThrow(/gpt2[\s\S]*GGUF/);
  });

  async function broken(name: string, change: object, tensors = sources): Promise<string> {
    const path = join(folder, name);
    await writeSafetensors(path, tensors);
    writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, ...change }));
    return path;
  }
  const compressed = { quantization_config: { quant_method: "compressed-tensors", format: "int-quantized" } };

  test("other quantizations, by name", async () => {
    const path = await broken("gptq", { quantization_config: { quant_method: "gptq", bits: 4 } });
    await expect(loadModelWith(backend, path)).rejects.toThrow(/compressed-tensors[\s\S]*"gptq"/);
  });

  test("zero points", async () => {
    const zero = tensor("lm_head.weight_zero_point", [80, 1]);
    const path = await broken("zero", compressed, [...sources, zero]);
    await expect(loadModelWith(backend, path)).rejects.toThrow(
      /weight_zero_point[\s\S]*symmetric[\s\S]*zero points/,
    );
  });

  test("scales that do not fit", async () => {
    const without = sources.filter(({ name }) => name !== "lm_head.weight");
    const integers: TensorSource = {
      name: "lm_head.weight",
      dtype: "i8",
      shape: [80, 64],
      data: () => new Int8Array(80 * 64),
    };
    const path = await broken("scales", compressed, [
      ...without,
      integers,
      tensor("lm_head.weight_scale", [77, 1]),
    ]);
    await expect(loadModelWith(backend, path)).rejects.toThrow(
      /lm_head.weight_scale[\s\S]*a scale for each row/,
    );
  });
});
