import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { randomGraphs } from "../../../test/support/random_graph.ts";
import { type Memory, memoryFor, runPlanned } from "../../../test/support/run_graph.ts";
import * as build from "../../graph/build.ts";
import { leaf } from "../../graph/build.ts";
import { buildGraph, type Graph } from "../../graph/graph.ts";
import { collectBindings, collectSymbols } from "../../runtime/bind.ts";
import { loadAddon } from "../../runtime/native/addon.ts";
import { createNativeBackend } from "../../runtime/native/backend.ts";
import { encodeProgram } from "../../runtime/native/encode.ts";
import { removeDeadCode } from "../passes/dead_code.ts";
import { backwardUse, separateUses } from "../passes/separate_uses.ts";
import { planProgram } from "./plan.ts";
import type { StoredLeaf, TierOptions } from "./tiers.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-tiers-"));
const store = createNativeBackend({ threads: 1 }).openStore!(folder, 2 ** 22);
afterAll(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});
const spill = { store: "disk", offset: 2 ** 21, bytes: 2 ** 21 };

/** Plans a graph with leaves in the store and runs it; gives what bindings and the store hold then. */
async function runTiered(
  recorded: Graph,
  names: readonly string[],
  memory: Memory,
  options: Partial<TierOptions> = {},
): Promise<{ memory: Memory; arenaBytes: number; transfers: number }> {
  const leaves = new Map<string, StoredLeaf>();
  for (const name of names) leaves.set(name, { store: "disk", offset: leaves.size * 16_384 });
  for (const [name, { offset }] of leaves) await store.write(offset, memory[name]!);
  const parameters = recorded.nodes.flatMap((node) =>
    node.op === "leaf" && node.attributes.kind === "parameter" && names.includes(node.attributes.name)
      ? [[node.attributes.name, node.attributes.dtype] as const]
      : [],
  );
  const graph = removeDeadCode(separateUses(recorded, new Map(parameters)));
  for (const [name] of parameters) leaves.set(backwardUse(name), leaves.get(name)!);
  const program = planProgram(graph, { leaves, ...options });
  const { words, kernels, labels } = encodeProgram(program, new Map([["disk", store.native as number]]));
  const addon = loadAddon();
  const native = addon.createProgram(
    addon.createContext(false),
    words,
    kernels,
    addon.detectedIsa(),
    program.constants,
    [],
    labels,
  );
  const bindings = collectBindings(program, memory, {});
  await addon.runProgram(native, 1, bindings, collectSymbols(program, {}), true, false, false);
  addon.releaseProgram(native);
  for (const name of names) await store.read(leaves.get(name)!.offset, memory[name]!);
  const transfers = program.steps.filter(({ kind }) => kind === "transfer").length;
  return { memory, arenaBytes: program.arenaBytes, transfers };
}

const leafNames = (graph: Graph): string[] =>
  graph.nodes.flatMap((node) => (node.op === "leaf" ? [node.attributes.name] : []));

test("random graphs give the same bits wherever their leaves lie", async () => {
  await fc.assert(
    fc.asyncProperty(
      randomGraphs({ dtypes: ["f32", "bf16"] }),
      fc.infiniteStream(fc.boolean()),
      fc.constantFrom(0, 64, 1024, 2 ** 20),
      async (graph, chosen, window) => {
        const names = leafNames(graph).filter(() => chosen.next().value === true);
        const expected = await runPlanned(graph, memoryFor(graph));
        const { memory } = await runTiered(graph, names, memoryFor(graph), { window });
        expect(memory).toEqual(expected);
      },
    ),
    { numRuns: 150 },
  );
});

/** A chain whose activations are all needed again on the way back. */
function thereAndBack(layers: number): Graph {
  const outputs = [];
  const activations = [leaf("x", "input", [64, 64], "f32")] as ReturnType<typeof build.matmul>[];
  for (let layer = 0; layer < layers; layer++) {
    const weight = leaf(`w${layer}`, "parameter", [64, 64], "f32");
    activations.push(build.matmul(activations.at(-1)!, weight));
  }
  let back = activations.at(-1)!;
  for (let layer = layers - 1; layer >= 0; layer--) {
    back = build.add(build.matmul(back, activations[layer]!), activations[layer]!);
    const target = leaf(`g${layer}`, "state", [64, 64], "f32");
    outputs.push({ name: `g${layer}`, value: build.multiply(back, 2), target, accumulate: true });
  }
  return buildGraph("there and back", outputs);
}

test("a limit is kept: parameters, gradients and activations go to the store, and no bit changes", async () => {
  const graph = thereAndBack(24);
  const names = leafNames(graph).filter((name) => name !== "x");
  const expected = await runPlanned(graph, memoryFor(graph));
  const matrix = 64 * 64 * 4;
  const counts: number[] = [];
  for (const matrices of [60, 34, 20, 12]) {
    const limit = matrices * matrix;
    const { memory, arenaBytes, transfers } = await runTiered(graph, names, memoryFor(graph), {
      limit,
      spill,
    });
    expect(arenaBytes).toBeLessThanOrEqual(limit);
    counts.push(transfers);
    expect(memory).toEqual(expected);
  }
  // With the least memory activations travel, too.
  expect(counts.at(-1)).toBeGreaterThan(counts[0]!);
});

test("a limit too small for any plan is refused with the smallest that would do", () => {
  const graph = thereAndBack(4);
  const leaves = new Map<string, StoredLeaf>();
  expect(() => planProgram(graph, { leaves, limit: 1000, spill })).toThrow(
    /program there and back does not fit in the memory limit\n {2}where: {4}memory\.limit\n {2}expected: at least [\d.]+ KiB[\s\S]*\n {2}received: 1000 B[\s\S]*raise the limit/,
  );
});
