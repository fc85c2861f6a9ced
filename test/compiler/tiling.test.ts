import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { DType, TensorData } from "../../src/base/dtype.ts";
import { ConfigError } from "../../src/base/errors.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount } from "../../src/base/shape.ts";
import { compileProgram } from "../../src/compiler/compile.ts";
import { tileTokens } from "../../src/compiler/passes/tiling/tile_tokens.ts";
import { passesBeforeRecomputation, runPasses } from "../../src/compiler/pipeline.ts";
import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import { leaf, reduce } from "../../src/graph/build.ts";
import { buildGraph, shapeOf } from "../../src/graph/graph.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { packSequences } from "../../src/models/batch.ts";
import { familyOf } from "../../src/models/families.ts";
import type { ConfigJson } from "../../src/models/family.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { scaleSymbol } from "../../src/parallel/sharding/prepare.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { layOutParameters } from "../../src/train/layout.ts";
import { accumulateGraph } from "../../src/train/programs.ts";
import { wholeProgram } from "../../src/train/sharding.ts";
import { wideReference } from "../parallel/pipeline_support.ts";

/** MLPs in tiles of tokens: the same numbers in less memory. */

function golden(family: string): ConfigJson {
  const path = new URL(`../golden/models/${family}/config.json`, import.meta.url);
  const config = JSON.parse(readFileSync(path, "utf8")) as ConfigJson;
  return { ...config, num_hidden_layers: 2, n_layer: 2 };
}

function record(config: ConfigJson, dtype: DType, tokens: number) {
  const space = ParameterSpace.create();
  const language = familyOf(config, "test").build(config, space, "test");
  const layout = layOutParameters(
    space.table,
    () => true,
    () => false,
  );
  const graph = accumulateGraph({ language, parameters: space.table, layout, dtype }, tokens, false);
  return { graph, language, parameters: space.table };
}

interface Run {
  readonly family: string;
  readonly dtype?: DType;
  readonly tiles: number;
  readonly recompute?: RecomputeSetting;
  readonly lengths?: readonly number[];
  readonly backend: Backend;
}

/** The loss and every gradient of one batch, of 60 tokens by default, from the same weights. */
async function run({ family, dtype = "f32", tiles, recompute, lengths = [17, 20, 23], backend }: Run) {
  const { graph, language, parameters } = record(golden(family), dtype, 60);
  const local = wholeProgram(graph, tiles);
  const executable = backend.compile(local.graph, { tiles, ...(recompute && { recompute }) });
  const sequences = lengths.map((length) => Array.from({ length }, (_, i) => (i * 7 + length) % 60));
  const results: Record<string, TensorData> = { loss: backend.allocate("f32", 1) };
  const weights: Record<string, TensorData> = {};
  let stream = 0;
  for (const { name, shape } of parameters.values()) {
    const source = new PhiloxStream(3, stream++);
    const data = backend.allocate("f32", elementCount(shape));
    for (let i = 0; i < data.length; i++) data[i] = source.nextNormal() * 0.3;
    weights[name] = data;
    results[`gradient ${name}`] = backend.allocate("f32", data.length);
  }
  const { leaves, symbols } = local.bind(packSequences(sequences, language.facts));
  await executable.run({ ...weights, ...results, ...leaves, weight: Float32Array.of(1 / 43) }, symbols);
  executable.dispose();
  return results;
}

/** The largest difference of a tensor, by its largest value. */
function distance(actual: TensorData, expected: TensorData): number {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs((actual[i] as number) - (expected[i] as number)));
    largest = Math.max(largest, Math.abs(expected[i] as number));
  }
  return difference / largest;
}

describe.each(["llama", "gpt2"])("%s", (family) => {
  test("tiles compute the loss and the gradients that the whole graph has in float64", async () => {
    const whole = await run({ family, tiles: 1, backend: wideReference() });
    expect(whole.loss![0]).toBeGreaterThan(1);
    for (const tiles of [2, 3, 7]) {
      const tiled = await run({ family, tiles, backend: wideReference() });
      for (const [name, data] of Object.entries(whole)) {
        expect(distance(tiled[name]!, data), `${name} in ${tiles} tiles`).toBeLessThan(1e-12);
      }
    }
  });

  test.each(["f32", "bf16"] as const)("native: the loss is the same to the last bit in %s", async (dtype) => {
    const backend = createNativeBackend({ threads: 2 });
    const whole = await run({ family, dtype, tiles: 1, backend });
    const settings: (RecomputeSetting | undefined)[] = [
      undefined,
      { mode: "every_k", every: 1 },
      { mode: "sqrt" },
    ];
    for (const recompute of settings) {
      for (const tiles of [2, 5]) {
        const tiled = await run({ family, dtype, tiles, backend, ...(recompute && { recompute }) });
        expect(tiled.loss).toEqual(whole.loss);
        for (const [name, data] of Object.entries(whole)) {
          // Sums over tokens are float32 in either dtype.
          expect(distance(tiled[name]!, data), `${name} in ${tiles} tiles`).toBeLessThan(2e-6);
        }
      }
    }
  });

  test("tokens that do not divide are padded", async () => {
    const backend = createNativeBackend({ threads: 2 });
    const lengths = [17, 20, 9];
    const whole = await run({ family, tiles: 1, lengths, backend });
    const tiled = await run({ family, tiles: 4, lengths, backend });
    for (const [name, data] of Object.entries(whole))
      expect(distance(tiled[name]!, data), name).toBeLessThan(2e-6);
  });

  test("what is no sum over tokens in an MLP is the same to the last bit", async () => {
    const backend = createNativeBackend({ threads: 2 });
    const whole = await run({ family, tiles: 1, backend });
    const tiled = await run({ family, tiles: 4, backend });
    const outside = Object.keys(whole).filter((name) => !name.includes("mlp"));
    expect(outside.length).toBeGreaterThan(10);
    for (const name of outside) expect(tiled[name], name).toEqual(whole[name]);
  });
});

describe("memory", () => {
  const sizes = { num_hidden_layers: 2, hidden_size: 64, intermediate_size: 1024, vocab_size: 256 };
  const { graph } = record({ ...golden("llama"), ...sizes }, "f32", 2048);
  const arena = (tiles: number, recompute: RecomputeSetting): number =>
    compileProgram(scaleSymbol(graph, "tokens", tiles), { tiles, recompute }).program.arenaBytes;

  test("nothing of all tokens is as wide as the intermediate size", () => {
    const tiled = tileTokens(runPasses(scaleSymbol(graph, "tokens", 8), passesBeforeRecomputation), 8);
    verifyGraph(tiled);
    const wide = tiled.nodes.flatMap(({ outputs }) => outputs).filter(({ shape }) => shape[1] === 1024);
    expect(wide.length).toBeGreaterThan(0);
    for (const { shape } of wide) {
      if (typeof shape[0] === "number") continue;
      expect(shape[0]).toMatchObject({ symbol: "tokens", scale: 1, bound: 256 });
    }
  });

  test.each([{ mode: "none" }, { mode: "every_k", every: 1 }] as RecomputeSetting[])(
    "the arena falls by what lies between the products: %o",
    (recompute) => {
      const [whole, tiled] = [arena(1, recompute), arena(8, recompute)];
      // gate, up and their product of every layer that keeps them, or of the one that is computed again.
      const layers = recompute.mode === "none" ? 2 : 1;
      const intermediates = 3 * layers * 2048 * 1024 * 4;
      const ofOneTile = (5 * 2048 * 1024 * 4) / 8;
      expect(whole - tiled).toBeGreaterThan(intermediates - ofOneTile - 3 * 2048 * 64 * 4);
      expect(tiled).toBeLessThan(whole / 3);
    },
  );

  test("more tiles take less", () => {
    const bytes = [1, 2, 4, 8].map((tiles) => arena(tiles, { mode: "every_k", every: 1 }));
    for (let index = 1; index < bytes.length; index++) expect(bytes[index]).toBeLessThan(bytes[index - 1]!);
  });
});

test("the loss over a vocabulary never holds tokens x vocabulary", () => {
  const bytes = (vocabulary: number): number => {
    const config = { ...golden("llama"), num_hidden_layers: 1, vocab_size: vocabulary };
    return compileProgram(record(config, "f32", 4096).graph).program.arenaBytes;
  };
  expect(bytes(32_000) - bytes(1000)).toBeLessThan((31_000 * 4096 * 4) / 50);
});

test("a model without such products is refused", () => {
  const tokens = { symbol: "tokens", bound: 8, scale: 2 };
  const x = leaf("x", "input", [tokens, 4], "f32");
  expect(shapeOf(x)).toEqual([tokens, 4]);
  const graph = buildGraph("train", [{ name: "loss", value: reduce("sum", x, [0, 1]) }]);
  expect(() => tileTokens(graph, 2)).toThrow(ConfigError);
  expect(() => tileTokens(graph, 2)).toThrow(/nothing to compute in tiles/);
});
