import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { DType, TensorData } from "../../src/base/dtype.ts";
import { ConfigError } from "../../src/base/errors.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount } from "../../src/base/shape.ts";
import { type CompiledProgram, compileProgram } from "../../src/compiler/compile.ts";
import { type RecomputePolicy, recomputeActivations } from "../../src/compiler/passes/recompute.ts";
import { passesBeforeRecomputation, pipeline, runPasses } from "../../src/compiler/pipeline.ts";
import { planProgram } from "../../src/compiler/plan/plan.ts";
import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import type { Graph } from "../../src/graph/graph.ts";
import { graphCost } from "../../src/graph/rules/cost.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { packSequences } from "../../src/models/batch.ts";
import { familyOf } from "../../src/models/families.ts";
import type { ConfigJson } from "../../src/models/family.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { layOutParameters } from "../../src/train/layout.ts";
import { accumulateGraph } from "../../src/train/programs.ts";

/** Recomputation on models of the golden families, deepened: the same bits in less memory. */

const depth = 9;

function golden(family: string, changes: ConfigJson = {}): ConfigJson {
  const path = new URL(`../golden/models/${family}/config.json`, import.meta.url);
  const config = JSON.parse(readFileSync(path, "utf8")) as ConfigJson;
  return { ...config, num_hidden_layers: depth, n_layer: depth, ...changes };
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

/** The loss and every gradient of one batch, from the same weights whatever the setting. */
async function run(
  family: string,
  dtype: DType,
  recompute: RecomputeSetting,
): Promise<Record<string, TensorData>> {
  const { graph, language, parameters } = record(golden(family), dtype, 48);
  const backend = createNativeBackend({ threads: 2 });
  const executable = backend.compile(graph, { recompute });
  const sequences = [17, 20, 9].map((length) => Array.from({ length }, (_, i) => (i * 7 + length) % 60));
  const { tokens, positions, offsets, targets } = packSequences(sequences, language.facts);
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
  const inputs = { tokens, positions, offsets, targets, weight: Float32Array.of(1 / 43) };
  const symbols = { tokens: tokens.length, offsets: offsets.length };
  await executable.run({ ...weights, ...inputs, ...results }, symbols);
  executable.dispose();
  return results;
}

const settings: readonly RecomputeSetting[] = [
  { mode: "every_k", every: 1 },
  { mode: "every_k", every: 2 },
  { mode: "every_k", every: 20 },
  { mode: "sqrt" },
  { mode: "keep_attention" },
  { mode: "budget", bytes: 400_000 },
];

describe.each(["llama", "gpt2"])("%s", (family) => {
  test.each(["f32", "bf16"] as const)("loss and gradients are bit-identical in %s", async (dtype) => {
    const plain = await run(family, dtype, { mode: "none" });
    expect(plain.loss![0]).toBeGreaterThan(1);
    for (const setting of settings) {
      const results = await run(family, dtype, setting);
      for (const [name, data] of Object.entries(plain)) {
        expect(data, `${name} with ${JSON.stringify(setting)}`).toEqual(results[name]);
      }
    }
  });
});

describe("memory and work", () => {
  const { graph } = record(golden("llama"), "bf16", 512);
  const compile = (recompute: RecomputeSetting): CompiledProgram => compileProgram(graph, { recompute });
  const none = compile({ mode: "none" });

  test("every block: activations several times smaller for less than another forward pass", () => {
    const every = compile({ mode: "every_k", every: 1 });
    expect(none.program.arenaBytes / every.program.arenaBytes).toBeGreaterThan(3);
    expect(every.flops).toBeGreaterThan(none.flops);
    expect(every.flops / none.flops).toBeLessThan(4 / 3);
  });

  test("with the results of attention kept, none is computed again, for some of the memory", () => {
    const every = compile({ mode: "every_k", every: 1 });
    const kept = compile({ mode: "keep_attention" });
    const attentions = ({ graph: { nodes } }: CompiledProgram): number =>
      nodes.filter(({ op }) => op === "attention").length;
    expect([none, every, kept].map(attentions)).toEqual([depth, 2 * depth, depth]);
    expect(kept.flops).toBeLessThan(every.flops);
    expect(kept.program.arenaBytes).toBeGreaterThan(every.program.arenaBytes);
    expect(none.program.arenaBytes / kept.program.arenaBytes).toBeGreaterThan(2);
  });

  test("nothing that follows from parameters is kept twice", () => {
    for (const setting of settings.slice(0, 5))
      expect(compile(setting).program.preparedBytes).toBe(none.program.preparedBytes);
  });

  test("cheap results alone already save memory, without any product", () => {
    const policy: RecomputePolicy = {
      segments: [],
      cheap: Array.from({ length: depth }, (_, block) => block),
    };
    const cheap = runPasses(graph, pipeline(policy));
    verifyGraph(cheap);
    const products = (candidate: Graph): number =>
      candidate.nodes.filter(({ op }) => op === "matmul" || op === "matmul_packed" || op === "attention")
        .length;
    expect(products(cheap)).toBe(products(none.graph));
    expect(planProgram(cheap).arenaBytes).toBeLessThan(none.program.arenaBytes * 0.8);
  });

  test("a budget is met, with more work only for less memory", () => {
    let flops = 0;
    for (const share of [1, 0.9, 0.7, 0.5, 0.35]) {
      const bytes = Math.floor(none.program.arenaBytes * share);
      const compiled = compile({ mode: "budget", bytes });
      expect(compiled.program.arenaBytes).toBeLessThanOrEqual(bytes);
      expect(compiled.flops).toBeGreaterThanOrEqual(flops);
      flops = compiled.flops;
    }
    expect(compile({ mode: "budget", bytes: none.program.arenaBytes }).flops).toBe(none.flops);
  });

  test("a budget that nothing meets names the smallest that would do", () => {
    let smallest = 0;
    expect(() => compile({ mode: "budget", bytes: 1000 })).toThrow(ConfigError);
    try {
      compile({ mode: "budget", bytes: 1000 });
    } catch (error) {
      const text = (error as ConfigError).message;
      expect(text).toMatch(/no choice of recomputation meets the memory budget[\s\S]*received: 1000 bytes/);
      smallest = Number(/at least (\d+) bytes/.exec(text)![1]);
    }
    expect(compile({ mode: "budget", bytes: smallest }).program.arenaBytes).toBeLessThanOrEqual(smallest);
    expect(() => compile({ mode: "budget", bytes: smallest - 1 })).toThrow(ConfigError);
  });

  test("only the checkpoints of the forward pass live until the backward pass", () => {
    const lowered = runPasses(graph, passesBeforeRecomputation);
    const policy: RecomputePolicy = {
      segments: Array.from({ length: depth }, (_, block) => [block]),
      cheap: [],
    };
    const rewritten = recomputeActivations(lowered, policy);
    verifyGraph(rewritten);
    const forwardOfBlock = new Set(
      rewritten.nodes.filter(({ scope }) => scope.phase === "forward" && scope.block !== undefined),
    );
    const kept = new Set<string>();
    for (const node of rewritten.nodes) {
      if (node.scope.phase !== "backward") continue;
      for (const { node: made, index } of node.inputs) {
        if (forwardOfBlock.has(made as never) && made.op !== "leaf" && made.op !== "cast")
          kept.add(`${made.id}.${index}`);
      }
    }
    // One value a block: what it hands to the next.
    expect(kept.size).toBe(depth);
    expect(graphCost(rewritten).flops).toBeGreaterThan(graphCost(lowered).flops);
  });
});
