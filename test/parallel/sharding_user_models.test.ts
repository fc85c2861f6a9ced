import { describe, expect, test } from "vitest";
import { leaf } from "../../src/graph/build.ts";
import type { Graph } from "../../src/graph/graph.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import {
  dynamicSwitch,
  ParameterSpace,
  type ParameterTable,
  replicate,
  shard,
  split,
} from "../../src/nn/index.ts";
import { Mesh, type MeshAxis, type MeshSizes } from "../../src/parallel/mesh.ts";
import { trafficOf } from "../../src/parallel/sharding/explain.ts";
import { type ShardedTraining, shardTraining } from "../../src/parallel/sharding/shard_training.ts";
import { evaluate } from "../../src/runtime/reference/evaluate.ts";
import { evaluateRanks } from "../../src/runtime/reference/evaluate_ranks.ts";
import { linear } from "../../src/tensor/functions.ts";
import { Tensor } from "../../src/tensor/tensor.ts";
import { boxPart, difference, randomTensor, withGradients } from "./sharding_support.ts";

interface UserModel {
  readonly graph: Graph;
  readonly parameters: ParameterTable;
  readonly input: readonly number[];
}

/** Ranks in lockstep against one rank; every parameter is whole on every rank. Returns the ranks' programs. */
function holdAgainstOne(
  { graph, parameters, input }: UserModel,
  sizes: Partial<MeshSizes>,
): ShardedTraining[] {
  const values = new Map<string, ReferenceTensor>([["x", randomTensor(1, input, 1)]]);
  values.set("weight", { shape: [], values: Float64Array.of(0.5) });
  let seed = 2;
  for (const { name, shape } of parameters.values()) {
    values.set(name, randomTensor(seed++, shape, 0.8));
    values.set(`gradient ${name}`, randomTensor(seed++, shape));
  }
  const expected = evaluate(graph, values);
  const { worldSize } = new Mesh(sizes, 0);
  const meshes = Array.from({ length: worldSize }, (_, rank) => new Mesh(sizes, rank));
  const sharded = meshes.map((mesh) => shardTraining(graph, mesh, parameters, []));
  const leaves = sharded.map(({ inputs }, rank) => {
    const mesh = meshes[rank]!;
    const local = new Map(values);
    for (const { name, source, layout, shape } of inputs) {
      const own = shape as number[];
      const starts = own.map(
        (size, axis) => size * (layout.dimensions[axis]!.length > 0 ? placeIn(mesh) : 0),
      );
      local.set(name, boxPart(values.get(source)!, { starts, sizes: own }));
    }
    return local;
  });
  for (const part of sharded) verifyGraph(part.graph);
  const results = evaluateRanks(
    sharded.map((part) => part.graph),
    leaves,
    { membersOf: (axes, rank) => meshes[rank]!.membersOf(axes.split("+") as MeshAxis[]) },
  );
  for (const [name, whole] of expected) {
    for (const mesh of meshes) {
      const terms = mesh.membersOf(["sequence"]).map((member) => results[member]!.get(name)!);
      const sum = terms[0]!.values.map((_, index) =>
        terms.reduce((total, term) => total + term.values[index]!, 0),
      );
      expect(difference({ shape: whole.shape, values: sum }, whole), name).toBeLessThan(1e-11);
    }
  }
  return sharded;
}

/** These meshes have one wide axis. */
function placeIn(mesh: Mesh): number {
  return mesh.rank;
}

const [rows, wide, narrow] = [6, 64, 8];

/** Two products, of which the author says where the middle is cut and where the end is whole. */
function annotatedModel(): UserModel {
  const space = ParameterSpace.create();
  const up = space.parameter("up", [wide, narrow], { kind: "normal", deviation: 1 });
  const down = space.parameter("down", [narrow, wide], { kind: "normal", deviation: 1 });
  const x = new Tensor(leaf("x", "input", [rows, narrow], "f32"));
  const middle = split(linear(x, up), 1, "tensor").gelu();
  const end = replicate(linear(middle, down));
  const loss = end.multiply(end).sum();
  return { graph: withGradients(loss.value, space.table), parameters: space.table, input: [rows, narrow] };
}

describe("a model of one's own with two annotations", () => {
  test.each([2, 4])("computes over %i ranks what one does", (tensor) => {
    const [first] = holdAgainstOne(annotatedModel(), { tensor });
    // Forward, the end is summed, and nothing else is exchanged.
    const forward = first!.conversions.filter(
      ({ bytes, reader }) => bytes > 0 && reader?.scope.phase === "forward",
    );
    expect(forward.map(({ step }) => step.kind)).toEqual(["all_reduce"]);
    expect(forward[0]!.bytes).toBe(((2 * (tensor - 1)) / tensor) * rows * narrow * 4);
    const local = first!.graph.nodes
      .filter(({ op }) => op === "matmul")
      .map(({ outputs }) => outputs[0]!.shape);
    expect(local).toContainEqual([rows, wide / tensor]);
  });

  test("without ranks the annotations change nothing", () => {
    const { graph } = annotatedModel();
    expect(graph.nodes.filter(({ op }) => op === "reshape").length).toBeGreaterThanOrEqual(2);
    const [only] = holdAgainstOne(annotatedModel(), {});
    expect(only!.conversions).toEqual([]);
  });

  test("annotations that cannot be are refused", () => {
    const x = new Tensor(leaf("x", "input", [4, 6], "f32"));
    expect(() => shard(x, ["tensor"])).toThrow(/must name every dimension[\s\S]*2 entries for \[4, 6\]/);
    const model = (specification: (string | null)[]): UserModel => {
      const space = ParameterSpace.create();
      const weight = space.parameter("matrix", [4, 6], { kind: "normal", deviation: 1 });
      const loss = shard(linear(x, weight), specification).sum();
      return { graph: withGradients(loss.value, space.table), parameters: space.table, input: [4, 6] };
    };
    expect(() => holdAgainstOne(model(["tensr", null]), { tensor: 2 })).toThrow(
      /there is no mesh axis "tensr"[\s\S]*did you mean "tensor"/,
    );
    expect(() => holdAgainstOne(model(["tensor", "tensor"]), { tensor: 2 })).toThrow(/cuts a tensor twice/);
    expect(() => holdAgainstOne(model(["tensor", null]), { tensor: 3 })).toThrow(
      /a tensor cannot be laid out as asked[\s\S]*4 to divide among 3/,
    );
  });
});

const [time, space, heads, headSize] = [4, 8, 4, 2];
const width = heads * headSize;

/** Attention along the second dimension of x [batch, tokens, width]. */
function attend(x: Tensor, parameters: ParameterSpace): Tensor {
  const [batch, tokens] = x.shape as number[];
  const project = (name: string): Tensor =>
    linear(x, parameters.parameter(name, [width, width], { kind: "normal", deviation: 1 }))
      .reshape([batch!, tokens!, heads, headSize])
      .transpose([0, 2, 1, 3]);
  const scores = project("query").matmul(project("key"), { transposeOther: true });
  const mixed = scores
    .softmax()
    .matmul(project("value"))
    .transpose([0, 2, 1, 3])
    .reshape([batch!, tokens!, width]);
  const output = parameters.parameter("output", [width, width], { kind: "normal", deviation: 1 });
  return x.add(linear(mixed, output));
}

/** Blocks that attend along space, then along time. */
function twoDimensional(blocks: number, place: (x: Tensor, dimension: number) => Tensor): UserModel {
  const parameters = ParameterSpace.create();
  const x = new Tensor(leaf("x", "input", [time, space, width], "f32"));
  let current = place(x, 0);
  for (let block = 0; block < blocks; block++) {
    const own = parameters.child(block);
    // Space stands within a moment: time is cut.
    current = attend(current, own.child("space"));
    current = place(current, 1).transpose([1, 0, 2]);
    current = place(attend(current, own.child("time")).transpose([1, 0, 2]), 0);
  }
  const loss = current.multiply(current).sum();
  return {
    graph: withGradients(loss.value, parameters.table),
    parameters: parameters.table,
    input: [time, space, width],
  };
}

describe("two sequence dimensions (DSP)", () => {
  test.each([2, 4])("switching over %i ranks computes what one rank does", (sequence) => {
    const blocks = 2;
    const [first] = holdAgainstOne(twoDimensional(blocks, dynamicSwitch), { sequence });
    const exchanges = first!.conversions.filter(({ bytes }) => bytes > 0);
    // Two switches a block, forward and backward; the input is given as it is needed, and needs no gradient.
    expect(exchanges.every(({ step }) => step.kind === "all_to_all")).toBe(true);
    expect(exchanges).toHaveLength(2 * 2 * blocks);
    const activations = (time * space * width * 4) / sequence;
    expect(trafficOf(first!)).toEqual([
      { axis: "sequence", collectives: 4 * blocks, bytes: 4 * blocks * (1 - 1 / sequence) * activations },
    ]);
  });

  test("half of what Ulysses exchanges, which keeps one dimension cut throughout", () => {
    const sequence = 2;
    const blocks = 2;
    const always = (x: Tensor, dimension: number): Tensor => (dimension === 0 ? split(x, 0, "sequence") : x);
    const ulysses = (x: Tensor, dimension: number): Tensor =>
      dimension === 0 ? always(x, 0) : split(x, 0, "sequence");
    const [switched] = holdAgainstOne(twoDimensional(blocks, dynamicSwitch), { sequence });
    const [kept] = holdAgainstOne(twoDimensional(blocks, ulysses), { sequence });
    expect(trafficOf(switched!)[0]!.bytes).toBeLessThanOrEqual(trafficOf(kept!)[0]!.bytes);
    // Queries, keys, values and the result of attention along time, forward and backward.
    const activations = (time * space * width * 4) / sequence;
    expect((4 * trafficOf(switched!)[0]!.bytes) / 2).toBe(
      (4 * (8 * blocks * (1 - 1 / sequence) * activations)) / 4,
    );
  });

  test("without annotations the switches are found", () => {
    const [free] = holdAgainstOne(
      twoDimensional(2, (x) => x),
      { sequence: 2 },
    );
    const [switched] = holdAgainstOne(twoDimensional(2, dynamicSwitch), { sequence: 2 });
    expect(trafficOf(free!)[0]!.bytes).toBeLessThanOrEqual(trafficOf(switched!)[0]!.bytes);
  });
});
