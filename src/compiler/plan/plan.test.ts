import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomGraphs } from "../../../test/support/random_graph.ts";
import { memoryFor, runNodeByNode, runPlanned, runReference } from "../../../test/support/run_graph.ts";
import { bytesPerElement } from "../../base/dtype.ts";
import { maximumElements, symbolic } from "../../base/shape.ts";
import * as build from "../../graph/build.ts";
import {
  type AnyNode,
  apply,
  buildGraph,
  dtypeOf,
  type Graph,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { accumulatingOutputs, inPlaceOutputs } from "../../graph/ops.ts";
import { describeProgram } from "../compile.ts";
import { removeDeadCode } from "../passes/dead_code.ts";
import { fuseElementwise } from "../passes/fuse_elementwise.ts";
import { parameterWork } from "./parameter_work.ts";
import { planProgram } from "./plan.ts";
import type { Program, ProgramTensor, StartStep } from "./program.ts";
import { copyOverwrittenLeaves } from "./routes.ts";
import { hasStep, keyOf, rootOf } from "./storage.ts";

const f32 = "f32" as const;
const state = (name: string, shape: readonly number[]) => build.leaf(name, "state", shape, f32);
const input = (name: string, shape: readonly number[]) => build.leaf(name, "input", shape, f32);

/** The bytes of a program's tensors as a map from byte to the value that was written there last. */
class Paint {
  readonly #bytes = new Map<string, Map<number, string>>();

  #place({ storage }: ProgramTensor): [Map<number, string>, number] {
    const area = storage.kind === "binding" ? `binding ${storage.binding}` : storage.kind;
    const bytes = this.#bytes.get(area) ?? new Map<number, string>();
    this.#bytes.set(area, bytes);
    return [bytes, "offset" in storage ? storage.offset : 0];
  }

  write(tensor: ProgramTensor, value: string): void {
    const [bytes, offset] = this.#place(tensor);
    const count = maximumElements(tensor.shape) * bytesPerElement(tensor.dtype);
    for (let byte = 0; byte < count; byte++) bytes.set(offset + byte, value);
  }

  /** The values found in a tensor's bytes. */
  read(tensor: ProgramTensor): Set<string | undefined> {
    const [bytes, offset] = this.#place(tensor);
    const found = new Set<string | undefined>();
    const count = maximumElements(tensor.shape) * bytesPerElement(tensor.dtype);
    for (let byte = 0; byte < count; byte++) found.add(bytes.get(offset + byte));
    return found;
  }
}

/**
 * Follows a program byte by byte: every step finds in its operands what the graph says, whole. Results of a collective
 * are there after its wait, however late it reads its operands and however early it spoils the memory of its results.
 */
function checkReads(recorded: Graph, program: Program): void {
  const graph = copyOverwrittenLeaves(recorded);
  const prepared = parameterWork(graph);
  const kernels = graph.nodes.filter(hasStep);
  const pending = [
    ...kernels.filter((node) => prepared.has(node)),
    ...kernels.filter((node) => !prepared.has(node)),
  ];
  const started = new Map<number, { node: AnyNode; step: StartStep }>();
  const paint = new Paint();
  program.bindings.forEach((binding, index) => {
    const node = graph.nodes.find((leaf) => leaf.op === "leaf" && leaf.attributes.name === binding.name);
    if (node === undefined) return;
    const { shape, dtype } = binding;
    paint.write({ shape, dtype, storage: { kind: "binding", binding: index } }, keyOf({ node, index: 0 }));
  });
  const expectOperands = (
    node: AnyNode,
    inputs: readonly number[],
    except: (value: Value, index: number) => boolean,
  ) => {
    node.inputs.forEach((value, index) => {
      const tensor = program.tensors[inputs[index]!]!;
      if (tensor.storage.kind === "constant" || maximumElements(tensor.shape) === 0) return;
      if (except(value, index)) return;
      expect(paint.read(tensor), `${node.op} operand ${index}`).toEqual(new Set([keyOf(rootOf(value))]));
    });
  };
  for (const step of [...program.prepare, ...program.steps]) {
    if (step.kind === "store") {
      const { storage } = program.tensors[step.output]!;
      const binding = program.bindings["binding" in storage ? storage.binding : -1]!;
      const sources = graph.outputs.filter(
        (o) => (o.target?.node.attributes.name ?? o.name) === binding.name,
      );
      const from = program.tensors[step.input]!;
      paint.write(program.tensors[step.output]!, "stored");
      if (from.storage.kind === "constant") continue;
      const [found, ...others] = paint.read(from);
      expect(others).toEqual([]);
      expect(sources.map((source) => keyOf(rootOf(source.value)))).toContain(found);
      continue;
    }
    if (step.kind === "wait") {
      const { node, step: start } = started.get(step.ticket)!;
      started.delete(step.ticket);
      const places = start.outputs.map((index) => JSON.stringify(program.tensors[index]!.storage));
      const inPlace = (index: number): boolean =>
        node.op === "all_reduce" &&
        JSON.stringify(program.tensors[start.inputs[index]!]!.storage) === places[index];
      expectOperands(node, start.inputs, (_, index) => inPlace(index));
      node.outputs.forEach((_, index) => {
        const tensor = program.tensors[start.outputs[index]!]!;
        if (maximumElements(tensor.shape) > 0)
          expect(paint.read(tensor), `${node.op} result ${index}`).toEqual(
            new Set([`spoiled ${step.ticket}`]),
          );
        paint.write(tensor, keyOf(rootOf({ node, index })));
      });
      continue;
    }
    if (step.kind === "transfer") throw new Error("nothing was to be stored elsewhere");
    const node = pending.shift()!;
    expect(step.op).toBe(node.op);
    expectOperands(node, step.inputs, () => false);
    if (step.kind === "start") {
      started.set(step.ticket, { node, step });
      for (const output of step.outputs) paint.write(program.tensors[output]!, `spoiled ${step.ticket}`);
      continue;
    }
    node.outputs.forEach((_, index) => {
      paint.write(program.tensors[step.outputs[index]!]!, keyOf(rootOf({ node, index })));
    });
    // Kernels may not write over what they read, but for a map of as many elements.
    expectOperands(node, step.inputs, (value) => {
      const [type] = node.outputs;
      const elements = maximumElements(shapeOf(value));
      const together =
        node.op === "map" && elements === maximumElements(type!.shape) && dtypeOf(value) === type!.dtype;
      return together || inPlaceOutputs[node.op] !== undefined;
    });
  }
  expect(pending).toEqual([]);
  expect(started.size).toBe(0);
}

describe("random graphs", () => {
  test("every step reads, whole, the values that the graph names", () => {
    fc.assert(
      fc.property(randomGraphs({ dtypes: ["f32", "bf16"] }), (graph) => {
        checkReads(graph, planProgram(graph));
        const fused = removeDeadCode(fuseElementwise(graph));
        checkReads(fused, planProgram(fused));
      }),
      { numRuns: 400 },
    );
  });

  test("collectives keep their memory from start to wait", () => {
    const groups = [
      { axes: "data", size: 2, rank: 1 },
      { axes: "tensor", size: 2, rank: 0 },
      { axes: "sequence", size: 1, rank: 0 },
    ];
    fc.assert(
      fc.property(randomGraphs({ dtypes: ["f32"], groups }), (graph) => {
        checkReads(graph, planProgram(graph));
        const fused = removeDeadCode(fuseElementwise(graph));
        checkReads(fused, planProgram(fused));
      }),
      { numRuns: 400 },
    );
  });

  test("results are bit for bit those of each node run alone, also the second time", async () => {
    await fc.assert(
      fc.asyncProperty(randomGraphs({ dtypes: ["f32"] }), async (graph) => {
        // Kernels that add to memory may round differently from an addition of their own.
        fc.pre(
          graph.outputs.every(
            (o) => o.accumulate !== true || accumulatingOutputs[rootOf(o.value).node.op] === undefined,
          ),
        );
        const expected = await runNodeByNode(graph);
        expect(await runPlanned(graph, memoryFor(graph))).toEqual(expected);
      }),
      { numRuns: 60 },
    );
  });
});

describe("outputs", () => {
  /** Runs natively and by the reference, and compares all memory. */
  async function agrees(graph: Graph): Promise<Program> {
    const expected = await runReference(graph);
    const actual = await runPlanned(graph, memoryFor(graph));
    for (const [name, data] of Object.entries(actual)) {
      data.forEach((value, i) => {
        expect(value, `${name}[${i}]`).toBeCloseTo(expected[name]![i]!, 5);
      });
    }
    return planProgram(graph);
  }

  const kinds = (program: Program) =>
    program.steps.map((step) => (step.kind === "kernel" ? step.op : step.kind));

  test("a kernel writes straight into the target", async () => {
    const graph = buildGraph("direct", [
      { name: "y", value: build.matmul(input("a", [3, 4]), input("b", [4, 5])), target: state("t", [3, 5]) },
    ]);
    const program = await agrees(graph);
    expect(kinds(program)).toEqual(["matmul"]);
    expect(program.arenaBytes).toBe(0);
  });

  test("a product that reads its target goes through the arena", async () => {
    const t = state("t", [4, 4]);
    const program = await agrees(
      buildGraph("self", [{ name: "y", value: build.matmul(t, input("b", [4, 4])), target: t }]),
    );
    expect(kinds(program)).toEqual(["matmul", "store"]);
  });

  test("a fused map writes over the target that it reads last", async () => {
    const t = state("t", [4, 4]);
    const graph = fuseElementwise(
      buildGraph("decay", [
        { name: "y", value: build.add(build.multiply(t, 0.5), input("g", [4, 4])), target: t },
      ]),
    );
    const program = await agrees(removeDeadCode(graph));
    expect(kinds(program)).toEqual(["map"]);
  });

  test("a target is stored after its last reader", async () => {
    const t = state("t", [4]);
    const first = build.unary("tanh", input("x", [4]));
    const later = build.add(t, build.multiply(first, 2));
    const program = await agrees(
      buildGraph("late", [
        { name: "t", value: first, target: t },
        { name: "later", value: later },
      ]),
    );
    expect(kinds(program).at(-1)).toBe("store");
  });

  test("an accumulating product waits for readers of what it adds to", async () => {
    const t = state("t", [3, 3]);
    const product = build.matmul(input("a", [3, 3]), input("b", [3, 3]));
    const reader = build.reduce("sum", build.unary("tanh", t), [0]);
    await agrees(
      buildGraph("accumulate", [
        { name: "t", value: product, target: t, accumulate: true },
        { name: "before", value: reader },
      ]),
    );
  });

  test("an accumulating product without other readers adds in its kernel", async () => {
    const product = build.matmul(input("a", [3, 3]), input("b", [3, 3]));
    const graph = buildGraph("accumulate", [
      { name: "t", value: product, target: state("t", [3, 3]), accumulate: true },
    ]);
    const program = await agrees(graph);
    expect(describeProgram(program)).toMatchInlineSnapshot(`
      "program accumulate: 1 steps (+0 prepared), arena 0 bytes, prepared 0 bytes
        t2 = matmul(t0, t1) (add)  # "
    `);
  });

  test("outputs to one leaf happen in their order, whoever is made first", async () => {
    const t = state("t", [3, 3]);
    const [a, b] = [input("a", [3, 3]), input("b", [3, 3])];
    const early = build.matmul(a, b);
    const late = build.matmul(early, b);
    await agrees(
      buildGraph("order", [
        { name: "t", value: late, target: t },
        { name: "t", value: early, target: t, accumulate: true },
      ]),
    );
    await agrees(
      buildGraph("order", [
        { name: "t", value: late, target: t, accumulate: true },
        { name: "t", value: early, target: t },
      ]),
    );
  });

  test("both gradients of a norm accumulate in the kernel, or neither does", async () => {
    const size = [5, 6];
    const norm = apply("layer_norm", [input("x", size), input("w", [6]), input("b", [6])], {
      epsilon: 1e-5,
      bias: true,
    });
    const of = (index: number): Value => ({ node: norm.node, index });
    const make = (secondRead: boolean): Graph => {
      const gradient = apply(
        "layer_norm_gradient",
        [input("g", size), norm.node.inputs[0]!, norm.node.inputs[1]!, of(1), of(2)],
        {},
      );
      const result = (index: number): Value => ({ node: gradient.node, index });
      const bias = state("db", [6]);
      return buildGraph("norm", [
        { name: "dx", value: result(0) },
        { name: "dw", value: result(1), target: state("dw", [6]), accumulate: true },
        { name: "db", value: result(2), target: bias, accumulate: true },
        ...(secondRead ? [{ name: "also", value: build.add(result(2), bias) }] : []),
      ]);
    };
    expect(
      (await agrees(make(false))).steps.filter((step) => "accumulate" in step && step.accumulate),
    ).toHaveLength(1);
    expect(
      (await agrees(make(true))).steps.filter((step) => step.kind === "store" && step.accumulate),
    ).toHaveLength(2);
  });

  test("two leaves can trade places", async () => {
    const [a, b] = [state("a", [4]), state("b", [4])];
    const program = await agrees(
      buildGraph("swap", [
        { name: "a", value: b, target: a },
        { name: "b", value: a, target: b },
      ]),
    );
    expect(kinds(program)).toEqual(["slice", "slice", "store"]);
  });

  test("a leaf added to itself doubles", async () => {
    const a = state("a", [4]);
    await agrees(buildGraph("double", [{ name: "a", value: a, target: a, accumulate: true }]));
  });

  test("one value can go to many places, through views too", async () => {
    const value = build.unary("tanh", input("x", [2, 3]));
    await agrees(
      buildGraph("many", [
        { name: "plain", value },
        { name: "flat", value: build.reshape(value, [6]) },
        { name: "t", value, target: state("t", [2, 3]) },
        { name: "u", value, target: state("u", [2, 3]), accumulate: true },
        { name: "sum", value: build.reduce("sum", value, [0, 1]) },
      ]),
    );
  });

  test("a result updated in place is copied out after the update", async () => {
    const [p, momentum] = [state("p", [8]), state("m", [8])];
    const update = apply("sgd", [p, input("g", [8]), momentum, input("hyper", [6])], {});
    const program = await agrees(buildGraph("sgd", [{ name: "updated", value: update }]));
    expect(kinds(program)).toEqual(["sgd", "store"]);
  });
});

describe("what runs once", () => {
  test("work on parameters alone is prepared, with the constants that it reads", () => {
    const weight = build.leaf("w", "parameter", [4], f32);
    const scaled = build.multiply(weight, build.constant([1, 2, 3, 4], [4]));
    const program = planProgram(buildGraph("g", [{ name: "y", value: build.add(input("x", [4]), scaled) }]));
    expect(program.prepare).toHaveLength(1);
    expect(program.steps).toHaveLength(1);
    expect(program.preparedBytes).toBe(64);
  });

  test("a parameter that the program overwrites is read anew every run", async () => {
    const weight = build.leaf("w", "parameter", [4], f32);
    const double = build.multiply(weight, 2);
    const graph = buildGraph("g", [{ name: "w", value: build.unary("negate", double), target: weight }]);
    expect(planProgram(graph).prepare).toEqual([]);
    const memory = memoryFor(graph);
    const before = [...memory.w!];
    await runPlanned(graph, memory, {}, 2);
    expect([...memory.w!]).toEqual(before.map((value) => value * 4));
  });

  test("what has a symbolic size is computed every run", async () => {
    const tokens = symbolic("tokens", 8);
    const row = build.leaf("row", "parameter", [3], f32);
    const graph = buildGraph("g", [
      { name: "y", value: build.unary("negate", build.broadcast(row, [tokens, 3])) },
    ]);
    expect(planProgram(graph).prepare).toEqual([]);
    const memory = await runPlanned(graph, memoryFor(graph, { tokens: 5 }), { tokens: 5 });
    const [a, b, c] = [...memory.row!].map((value) => -value);
    expect([...memory.y!]).toEqual(Array.from({ length: 5 }, () => [a, b, c]).flat());
  });
});

test("programs are planned for the bound and run at any smaller size", async () => {
  const tokens = symbolic("tokens", 16);
  const x = build.leaf("x", "input", [tokens, 4], f32);
  const product = build.matmul(x, build.leaf("w", "input", [4, 4], f32));
  const flat = build.reshape(build.unary("tanh", build.add(product, x)), [{ ...tokens, scale: 4 }]);
  const graph = buildGraph("g", [
    { name: "y", value: flat },
    { name: "sum", value: build.reduce("sum", flat, [0]) },
  ]);
  expect(planProgram(graph).symbols).toEqual([{ name: "tokens", bound: 16 }]);
  for (const size of [0, 1, 7, 16]) {
    const symbols = { tokens: size };
    const expected = await runReference(graph, symbols);
    const actual = await runPlanned(graph, memoryFor(graph, symbols), symbols);
    expect(actual.y).toHaveLength(size * 4);
    actual.y!.forEach((value, i) => {
      expect(value).toBeCloseTo(expected.y![i]!, 5);
    });
    expect(actual.sum![0]).toBeCloseTo(expected.sum![0]!, 4);
  }
});

test("one symbol with two bounds is refused", () => {
  const x = build.leaf("x", "input", [symbolic("tokens", 4)], f32);
  const y = build.leaf("y", "input", [symbolic("tokens", 8)], f32);
  const sums = [x, y].map((leaf, index) => ({ name: `s${index}`, value: build.reduce("sum", leaf, [0]) }));
  expect(() => planProgram(buildGraph("g", sums))).toThrow(/symbol "tokens" has two bounds[\s\S]*4 and 8/);
});

test("constants are never updated in place", () => {
  const zeros = build.constant([0, 0], [2]);
  const update = apply("sgd", [zeros, input("g", [2]), state("m", [2]), input("hyper", [6])], {});
  const graph = buildGraph("g", [{ name: "y", value: update }]);
  expect(() => planProgram(graph)).toThrow(/internal: sgd updates a constant in place/);
});
