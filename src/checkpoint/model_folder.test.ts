import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileFormatError } from "../base/errors.ts";
import { checkNames } from "./check_names.ts";
import { openModelWeights } from "./model_folder.ts";
import { writeSafetensors } from "./safetensors_writer.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function writeShards(): Promise<void> {
  const one = (name: string, value: number) => ({
    name,
    dtype: "f32" as const,
    shape: [1, 2],
    data: () => Float32Array.of(value, -value),
  });
  await writeSafetensors(folder, [one("a", 1), one("b", 2), one("c", 3)], { maxShardBytes: 16 });
}

async function failureOf(promise: Promise<unknown>): Promise<FileFormatError> {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(FileFormatError);
  return error as FileFormatError;
}

describe("a sharded folder", () => {
  test("reads as one file", async () => {
    await writeShards();
    const reader = await openModelWeights(folder);
    expect(reader.names()).toEqual(["a", "b", "c"]);
    expect(reader.info("c")).toEqual({ dtype: "f32", shape: [1, 2], byteLength: 8 });
    expect(await reader.read("c")).toEqual(Float32Array.of(3, -3));
    expect(reader.metadata.get("format")).toBe("pt");
    await expect(reader.read("d")).rejects.toThrow(/tensor "d" of/);
    await reader.close();
  });

  test("with a shard missing is refused by its name", async () => {
    await writeShards();
    await rm(join(folder, "model-00002-of-00002.safetensors"));
    const error = await failureOf(openModelWeights(folder));
    expect(error.message).toMatch(/shard .* is missing[\s\S]*model-00002-of-00002\.safetensors/);
    expect(error.code).toBe("missing_shard");
  });

  test("with a tensor absent from its shard is refused by both names", async () => {
    await writeShards();
    const path = join(folder, "model.safetensors.index.json");
    const index = JSON.parse(await readFile(path, "utf8")) as { weight_map: Record<string, string> };
    index.weight_map.d = "model-00001-of-00002.safetensors";
    await writeFile(path, JSON.stringify(index));
    const error = await failureOf(openModelWeights(folder));
    expect(error.message).toMatch(/tensor "d" of .*model-00001-of-00002\.safetensors/);
    expect(error.code).toBe("missing_tensor");
  });

  test("with a damaged shard is refused", async () => {
    await writeShards();
    await writeFile(join(folder, "model-00002-of-00002.safetensors"), "gone");
    expect((await failureOf(openModelWeights(folder))).message).toMatch(/model-00002-of-00002/);
  });

  test.each([
    ["{", "not_json", /does not hold JSON/],
    ["[]", "not_json", /received: an array/],
    ["{}", "bad_index", /received: no weight_map/],
    ['{"weight_map":{"a":5}}', "bad_index", /"a": 5/],
    ['{"weight_map":{"a":"../../etc/passwd"}}', "bad_index", /name of a file in this folder[\s\S]*passwd/],
    ['{"weight_map":{"a":".."}}', "bad_index", /"\.\."/],
  ])("with the index %s is refused", async (text, code, message) => {
    await writeFile(join(folder, "model.safetensors.index.json"), text);
    const error = await failureOf(openModelWeights(folder));
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });
});

test("a folder without weights is refused with what it holds", async () => {
  expect((await failureOf(openModelWeights(folder))).message).toMatch(/received: an empty folder/);
  await writeFile(join(folder, "pytorch_model.bin"), "");
  expect((await failureOf(openModelWeights(folder))).message).toMatch(/convert pytorch_model\.bin/);
  expect((await failureOf(openModelWeights(join(folder, "absent")))).code).toBe("missing_file");
  await mkdir(join(folder, "model.safetensors"));
  expect((await failureOf(openModelWeights(folder))).code).toBe("unreadable_file");
});

describe("checkNames", () => {
  test("accepts exactly the expected tensors, and extras that may be", async () => {
    await writeShards();
    const reader = await openModelWeights(folder);
    checkNames(
      new Map([
        ["a", [1, 2]],
        ["b", [1, 2]],
        ["c", [1, 2]],
      ]),
      reader,
    );
    checkNames(new Map([["a", [1, 2]]]), reader, { mayBeExtra: (name) => name !== "a" });
    await reader.close();
  });

  test("names what is missing, extra and of another shape", async () => {
    await writeShards();
    const reader = await openModelWeights(folder);
    const check = () =>
      checkNames(
        new Map([
          ["a", [2, 1]],
          ["b", [1, 2]],
          ["cc", [4]],
        ]),
        reader,
      );
    expect(check).toThrow(FileFormatError);
    expect(check).toThrow(
      /missing: cc \[4\]; the file holds c\n +wrong shape: a, expected \[2, 1\], received \[1, 2\]\n +extra: c\n/,
    );
    expect(check).toThrow(/received: 3 tensors: 1 missing, 1 of wrong shape, 1 extra/);
    await reader.close();
  });

  test("counts what does not fit on the screen", async () => {
    await writeShards();
    const reader = await openModelWeights(folder);
    const many = new Map(Array.from({ length: 20 }, (_, layer) => [`model.layers.${layer}.weight`, [1]]));
    expect(() => checkNames(many, reader)).toThrow(
      /missing: model\.layers\.9\.weight \[1\]\n +\.\.\. and 13 more\n/,
    );
    expect(() => checkNames(many, reader)).not.toThrow(/layers\.10/);
    await reader.close();
  });
});

describe("a real model: stories260K", () => {
  const real = join(import.meta.dirname, "../../../shared/data/stories260K");

  test("has the names and shapes of its configuration", async ({ skip }) => {
    skip(!existsSync(join(real, "model.safetensors")), `the model is not there: ${real}`);
    const config = JSON.parse(await readFile(join(real, "config.json"), "utf8")) as Record<string, number>;
    const width = config.hidden_size!;
    const keys = (width / config.num_attention_heads!) * config.num_key_value_heads!;
    const inner = config.intermediate_size!;
    const expected = new Map([
      ["model.embed_tokens.weight", [config.vocab_size!, width]],
      ["model.norm.weight", [width]],
    ]);
    for (let layer = 0; layer < config.num_hidden_layers!; layer++) {
      const shapes = {
        "input_layernorm.weight": [width],
        "post_attention_layernorm.weight": [width],
        "self_attn.q_proj.weight": [width, width],
        "self_attn.k_proj.weight": [keys, width],
        "self_attn.v_proj.weight": [keys, width],
        "self_attn.o_proj.weight": [width, width],
        "mlp.gate_proj.weight": [inner, width],
        "mlp.up_proj.weight": [inner, width],
        "mlp.down_proj.weight": [width, inner],
      };
      for (const [name, shape] of Object.entries(shapes))
        expected.set(`model.layers.${layer}.${name}`, shape);
    }
    const reader = await openModelWeights(real);
    checkNames(expected, reader);
    // The file's own bytes, found without the reader: the first tensor begins after the header.
    const file = await readFile(join(real, "model.safetensors"));
    const start = 8 + file.readUInt32LE(0);
    const embedding = await reader.read("model.embed_tokens.weight");
    expect(embedding[0]).toBe(file.readFloatLE(start));
    expect(embedding.at(-1)).toBe(file.readFloatLE(start + 4 * (config.vocab_size! * width - 1)));
    // Norm weights of a trained model lie around one.
    const norm = await reader.read("model.norm.weight");
    const mean = [...norm].reduce((sum, value) => sum + value, 0) / norm.length;
    expect(mean).toBeGreaterThan(0.1);
    expect(mean).toBeLessThan(20);
    await reader.close();
  });
});
