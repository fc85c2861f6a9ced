import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decode, encode, type TensorData } from "../../src/base/dtype.ts";
import { CommunicationError } from "../../src/base/errors.ts";
import type { Dimension } from "../../src/base/shape.ts";
import { removeDeadCode } from "../../src/compiler/passes/dead_code.ts";
import { fuseElementwise } from "../../src/compiler/passes/fuse_elementwise.ts";
import { planProgram } from "../../src/compiler/plan/plan.ts";
import { add, leaf, matmul, multiply, reduce, unary } from "../../src/graph/build.ts";
import { apply, buildGraph, createNode, type Graph, type Value } from "../../src/graph/graph.ts";
import type { RankGroup } from "../../src/graph/ops.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { Mesh } from "../../src/parallel/mesh.ts";
import { collectBindings, collectSymbols } from "../../src/runtime/bind.ts";
import { loadAddon } from "../../src/runtime/native/addon.ts";
import { encodeProgram } from "../../src/runtime/native/encode.ts";
import { evaluateRanks } from "../../src/runtime/reference/evaluate_ranks.ts";
import { Trace } from "../../src/runtime/trace.ts";
import { type RandomGraphOptions, randomRanks } from "../support/random_graph.ts";
import { type Memory, memoryFor, runRanksNodeByNode } from "../support/run_graph.ts";
import { type LocalRank, membersOf, withLocalRanks } from "./local_ranks.ts";

/** Programs of several ranks in this process, with collectives that run beside the kernels. */

const data = (rank: number, size: number): RankGroup => ({ axes: "data", size, rank });

/** Every collective, between kernels, some of them in buckets, over rows of a symbolic number. */
function everything(rank: number, size: number): Graph {
  const group = data(rank, size);
  const rows: Dimension = { symbol: "rows", bound: 3, scale: size };
  const x = leaf("x", "input", [rows, 4], "f32");
  const weight = leaf("weight", "parameter", [4, 2 * size], "f32");
  const product = unary("tanh", matmul(x, weight));
  const summed = createNode("all_reduce", [product, multiply(x, 2)], { group });
  const scattered = apply("reduce_scatter", [add({ node: summed, index: 0 }, 1)], { group, dimension: 1 });
  const gathered = apply("all_gather", [scattered], { group, dimension: 1 });
  const exchanged = createNode("all_to_all", [gathered, { node: summed, index: 1 }], {
    group,
    split: 0,
    concatenate: 1,
  });
  const moved = apply("permute", [{ node: exchanged, index: 0 }], { group, offset: -1 });
  const state = leaf("state", "state", [4, 2 * size], "f32");
  const gradient = apply("all_reduce", [multiply(weight, 0.5)], { group });
  return buildGraph("everything", [
    { name: "moved", value: multiply(moved, 3) },
    { name: "exchanged", value: { node: exchanged, index: 1 } },
    { name: "gathered", value: gathered },
    { name: "gradient", value: gradient, target: state, accumulate: true },
  ]);
}

function values(memory: Memory, graph: Graph, symbols: Readonly<Record<string, number>>) {
  const leaves = new Map<string, ReferenceTensor>();
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    const { name, shape, dtype } = node.attributes;
    const sizes = shape.map((size) => (typeof size === "number" ? size : size.scale * symbols[size.symbol]!));
    leaves.set(name, { shape: sizes, values: decode(dtype, memory[name]!) });
  }
  return leaves;
}

function expectClose(actual: TensorData, expected: Float64Array, what: string): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  expect(actual.length, what).toBe(expected.length);
  const error = expected.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - (actual[i] as number))),
    0,
  );
  expect(error / largest, what).toBeLessThan(1e-5);
}

/** A rank's numbers: the same names hold different ones on each. */
function rankMemory(graph: Graph, rank: number, symbols: Readonly<Record<string, number>> = {}): Memory {
  const memory = memoryFor(graph, symbols);
  for (const [name, numbers] of Object.entries(memory))
    memory[name] = encode(
      "f32",
      [...decode("f32", numbers)].map((value) => value * (1 + rank / 8)),
    );
  return memory;
}

describe.each([1, 2, 4, 8])("%i ranks", (size) => {
  test.each([0, 2, 3])(
    "every collective gives what the reference says, run after run, of %i x rows",
    async (rows) => {
      const symbols = { rows };
      const graphs = Array.from({ length: size }, (_, rank) => everything(rank, size));
      const memory = graphs.map((graph, rank) => rankMemory(graph, rank, symbols));
      const states = memory.map(({ state }) => decode("f32", state!));
      const expected = evaluateRanks(
        graphs,
        graphs.map((graph, rank) => values(memory[rank]!, graph, symbols)),
        { symbols },
      );
      await withLocalRanks({ data: size }, ["data"], async (ranks) => {
        const executables = ranks.map(({ backend, groups }, rank) =>
          backend.compile(graphs[rank]!, { groups }),
        );
        for (let run = 1; run <= 3; run++) {
          await Promise.all(executables.map((executable, rank) => executable.run(memory[rank]!, symbols)));
          expected.forEach((outputs, rank) => {
            for (const [name, { values: numbers }] of outputs) {
              if (name !== "gradient") expectClose(memory[rank]![name]!, numbers, `${name} of rank ${rank}`);
            }
            const sum = outputs.get("gradient")!.values.map((value, i) => states[rank]![i]! + run * value);
            expectClose(memory[rank]!.state!, sum, `state of rank ${rank}`);
          });
        }
        for (const executable of executables) executable.dispose();
      });
    },
  );
});

test("random programs of four ranks give bit for bit what their nodes give alone, whatever the timing", async () => {
  const sizes = { data: 2, tensor: 2 };
  const axes = ["data", "tensor"];
  const options = [0, 1, 2, 3].map((rank): RandomGraphOptions => {
    const { place } = new Mesh(sizes, rank);
    const groups: RankGroup[] = [
      { axes: "data", size: 2, rank: place.data },
      { axes: "tensor", size: 2, rank: place.tensor },
      { axes: "sequence", size: 1, rank: 0 },
    ];
    return { dtypes: ["f32"], groups };
  });
  const members = (name: string, rank: number): number[] => membersOf(sizes, name, rank);
  // Links of different speeds, so that collectives end long after their start and out of order.
  const links = { data: { bandwidth: 1e7, latency: 2e-4 }, tensor: { bandwidth: 1e9, latency: 1e-5 } };
  const addon = loadAddon();
  await withLocalRanks(
    sizes,
    axes,
    async (ranks) => {
      await fc.assert(
        fc.asyncProperty(randomRanks(options), async (recorded) => {
          const fused = recorded.map((graph) => removeDeadCode(fuseElementwise(graph)));
          for (const graphs of [recorded, fused]) {
            const adds = graphs[0]!.outputs.some(({ accumulate }) => accumulate === true);
            // Kernels that add to memory may round differently from an addition of their own.
            if (adds && graphs[0]!.nodes.some(({ op }) => op === "matmul")) continue;
            const expected = await runRanksNodeByNode(
              graphs,
              graphs.map((graph, rank) => rankMemory(graph, rank)),
              members,
            );
            const actual = await Promise.all(
              graphs.map(async (graph, rank) => {
                const program = planProgram(graph);
                const { words, kernels, labels } = encodeProgram(program);
                const natives = program.groups.map((group) => ranks[rank]!.groups.get(group.axes)!.native);
                const context = addon.createContext(true);
                const native = addon.createProgram(
                  context,
                  words,
                  kernels,
                  addon.detectedIsa(),
                  program.constants,
                  natives,
                  labels,
                );
                const memory = rankMemory(graph, rank);
                const bindings = collectBindings(program, memory, {});
                await addon.runProgram(native, 1, bindings, collectSymbols(program, {}), true, false, false);
                addon.releaseProgram(native);
                addon.releaseContext(context);
                return memory;
              }),
            );
            expect(actual).toEqual(expected);
          }
        }),
        { numRuns: 80, endOnFailure: true },
      );
    },
    { links },
  );
}, 60_000);

describe("faults", () => {
  const x = leaf("x", "input", [4], "f32");
  const shift = (rank: number, size: number, offset: number): Graph =>
    buildGraph("shift", [{ name: "y", value: apply("permute", [x], { group: data(rank, size), offset }) }]);
  const bindings = () => ({ x: new Float32Array(4), y: new Float32Array(4) });
  const compile = ({ backend, groups }: LocalRank, graph: Graph) => backend.compile(graph, { groups });

  test("a group that is missing, or another than the program's, is named", async () => {
    await withLocalRanks({ data: 2 }, ["data"], async ([first]) => {
      const { backend, groups } = first!;
      expect(() => backend.compile(shift(0, 2, 1))).toThrow(
        /no process group is given for collectives over "data"[\s\S]*program shift[\s\S]*2 ranks/,
      );
      expect(() => backend.compile(shift(1, 2, 1), { groups })).toThrow(
        /another than the program's[\s\S]*rank 1 of 2[\s\S]*rank 0 of 2/,
      );
    });
  });

  test("ranks whose programs differ end with an error that names the operation", async () => {
    await withLocalRanks({ data: 2 }, ["data"], async (ranks) => {
      const graphs = [shift(0, 2, 1), buildGraph("sum", [{ name: "y", value: sum(x, 1, 2) }])];
      const runs = ranks.map((rank, index) => compile(rank, graphs[index]!).run(bindings()));
      const results = await Promise.allSettled(runs);
      for (const result of results) {
        expect(result.status).toBe("rejected");
        const { reason } = result as PromiseRejectedResult;
        expect(reason).toBeInstanceOf(CommunicationError);
        expect(reason).toMatchObject({ code: "collective_mismatch" });
        expect(String(reason)).toMatch(/permute[\s\S]*all_reduce|all_reduce[\s\S]*permute/);
      }
    });
  });

  test("a rank that stops at a result that is not finite ends the others", async () => {
    const local = leaf("z", "input", [4], "f32");
    const graph = (rank: number): Graph => {
      const early = sum(x, rank, 2);
      return buildGraph("late", [
        { name: "y", value: sum(add(unary("log", local), early), rank, 2) },
        { name: "early", value: early },
      ]);
    };
    await withLocalRanks({ data: 2 }, ["data"], async (ranks) => {
      const runs = ranks.map((rank, index) => {
        const memory = { ...bindings(), z: new Float32Array(4).fill(1 - index), early: new Float32Array(4) };
        return compile(rank, graph(index)).run(memory, {}, { checkFinite: true });
      });
      const [first, second] = await Promise.allSettled(runs);
      expect(first).toMatchObject({ status: "rejected", reason: { code: "rank_lost" } });
      expect(String((first as PromiseRejectedResult).reason)).toMatch(/rank 1[\s\S]*not finite/);
      expect(second).toMatchObject({ status: "rejected", reason: { code: "not_finite" } });
    });
  });

  test("a process can exit while its ranks wait for each other", () => {
    const script = `
      import { withLocalRanks } from "./test/parallel/local_ranks.ts";
      import { leaf } from "./src/graph/build.ts";
      import { apply, buildGraph } from "./src/graph/graph.ts";
      const x = leaf("x", "input", [4], "f32");
      await withLocalRanks({ data: 3 }, ["data"], async (ranks) => {
        for (const { backend, groups } of ranks.slice(1)) {
          const group = { axes: "data", size: 3, rank: groups.get("data").rank };
          const y = apply("all_reduce", [x], { group });
          const program = backend.compile(buildGraph("stuck", [{ name: "y", value: y }]), { groups });
          program.run({ x: new Float32Array(4), y: new Float32Array(4) }).catch(() => {});
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
        process.exit(9);
      }, { timeoutSeconds: 0 });
    `;
    const run = () =>
      execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
        stdio: "pipe",
        timeout: 20_000,
      });
    expect(run).toThrow(expect.objectContaining({ status: 9, signal: null }));
  });

  test("a rank that never comes ends the others in time, and nothing is written afterwards", async () => {
    await withLocalRanks(
      { data: 2 },
      ["data"],
      async ([first]) => {
        const memory = bindings();
        await expect(compile(first!, shift(0, 2, 1)).run(memory)).rejects.toMatchObject({
          code: "collective_timeout",
        });
      },
      { timeoutSeconds: 0.3 },
    );
  });
});

/** A sum over ranks, as a value. */
function sum(x: Value, rank: number, size: number): Value {
  return apply("all_reduce", [x], { group: data(rank, size) });
}

test("a trace shows each rank's kernels and, on a lane of their own, its collectives", async () => {
  const trace = new Trace();
  const weight = leaf("w", "input", [64, 64], "f32");
  const graph = (rank: number): Graph => {
    const gathered = apply("all_gather", [leaf("g", "input", [8, 64], "f32")], {
      group: data(rank, 2),
      dimension: 0,
    });
    const beside = matmul(weight, weight);
    return buildGraph("beside", [{ name: "y", value: reduce("sum", matmul(gathered, beside), [0, 1]) }]);
  };
  await withLocalRanks(
    { data: 2 },
    ["data"],
    async (ranks) => {
      await Promise.all(
        ranks.map(({ backend, groups }, rank) =>
          backend.compile(graph(rank), { groups }).run({
            w: new Float32Array(64 * 64),
            g: new Float32Array(8 * 64),
            y: new Float32Array(1),
          }),
        ),
      );
    },
    { trace, links: { data: { bandwidth: 1e9, latency: 0.02 } } },
  );
  interface Event {
    readonly pid: number;
    readonly tid: number;
    readonly name: string;
    readonly cat?: string;
    readonly ts: number;
    readonly dur: number;
    readonly args: { readonly name?: string };
  }
  const events = trace.toJSON().traceEvents as Event[];
  const names = events.filter(({ name }) => name === "process_name").map(({ args }) => args.name);
  expect(names).toEqual(["rank 0", "rank 1"]);
  const collectives = events.filter(({ cat }) => cat === "collective");
  expect(collectives.map(({ name, pid }) => `${name} ${pid}`).sort()).toEqual([
    "all_gather 2",
    "all_gather 3",
  ]);
  for (const { pid, tid, ts, dur } of collectives) {
    const lane = events.find(
      (event) => event.name === "thread_name" && event.pid === pid && event.tid === tid,
    );
    expect(lane!.args.name).toBe("ranks over data");
    // The link's latency alone is as long; kernels run meanwhile.
    expect(dur).toBeGreaterThan(20_000);
    const beside = events.filter(
      (event) => event.cat === "kernel" && event.name === "matmul" && event.pid === pid,
    );
    expect(beside.some((kernel) => kernel.ts + kernel.dur < ts + dur)).toBe(true);
  }
});
