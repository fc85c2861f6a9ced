import type { Box } from "../../src/base/pieces.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount, resolveShape, type SymbolValues, stridesOf } from "../../src/base/shape.ts";
import type { ShardingTable } from "../../src/graph/annotations.ts";
import { leaf } from "../../src/graph/build.ts";
import { gradients } from "../../src/graph/gradient.ts";
import { buildGraph, type Graph, leavesOf } from "../../src/graph/graph.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { packSequences } from "../../src/models/batch.ts";
import type { ConfigJson, LanguageModel, ModelFamily } from "../../src/models/family.ts";
import { packedLeaves } from "../../src/models/model.ts";
import { packedContext } from "../../src/nn/attention.ts";
import { ParameterSpace, type ParameterTable } from "../../src/nn/parameters.ts";
import type { LocalParameter } from "../../src/parallel/local_parameter.ts";
import { Mesh, type MeshAxis, type MeshSizes } from "../../src/parallel/mesh.ts";
import {
  localParameters,
  type ShardedTraining,
  shardTraining,
} from "../../src/parallel/sharding/shard_training.ts";
import { evaluate } from "../../src/runtime/reference/evaluate.ts";
import { evaluateRanks } from "../../src/runtime/reference/evaluate_ranks.ts";
import { linearCrossEntropy } from "../../src/tensor/functions.ts";

/** A model's training graph in whole shapes, and random values for it. */
export interface Recorded {
  readonly graph: Graph;
  readonly parameters: ParameterTable;
  readonly language: LanguageModel;
}

/** Loss and gradients of a language model over up to `bound` tokens. */
export function recordTraining(family: ModelFamily, config: ConfigJson, bound: number): Recorded {
  const space = ParameterSpace.create();
  const language = family.build(config, space, "test");
  const leaves = packedLeaves(bound);
  const hidden = language.hidden(leaves.tokens, leaves.positions, packedContext(leaves.offsets), "f32");
  const loss = linearCrossEntropy(hidden, language.outputWeight, leaves.targets).sum();
  const parameters = space.table;
  return { graph: withGradients(loss.value, parameters), parameters, language };
}

/** The graph of a loss and the gradients of all parameters, as training has it. */
export function withGradients(loss: Parameters<typeof gradients>[0], parameters: ParameterTable): Graph {
  const weight = leaf("weight", "input", [], "f32");
  const table = [...parameters.values()];
  const results = gradients(
    loss,
    table.map(({ tensor }) => tensor.value),
    weight,
  );
  return buildGraph("train", [
    { name: "loss", value: loss },
    ...table.map(({ name, shape }, index) => ({
      name: `gradient ${name}`,
      value: results[index]!,
      target: leaf(`gradient ${name}`, "state", shape, "f32"),
    })),
  ]);
}

/** Random values of a shape. */
export function randomTensor(seed: number, shape: readonly number[], scale = 0.3): ReferenceTensor {
  const stream = new PhiloxStream(seed, 0);
  const count = shape.reduce((product, size) => product * size, 1);
  return { shape, values: Float64Array.from({ length: count }, () => (stream.nextFloat() - 0.5) * scale) };
}

/** The part of a tensor in a box. */
export function boxPart(tensor: ReferenceTensor, { starts, sizes }: Box): ReferenceTensor {
  const strides = stridesOf(tensor.shape);
  const inner = stridesOf(sizes);
  const values = new Float64Array(elementCount(sizes)).map((_, index) => {
    const source = sizes.reduce((place, size, axis) => {
      return place + (starts[axis]! + (Math.floor(index / inner[axis]!) % size)) * strides[axis]!;
    }, 0);
    return tensor.values[source]!;
  });
  return { shape: sizes, values };
}

/** The largest difference, relative to the largest expected value. */
export function difference(actual: ReferenceTensor, expected: ReferenceTensor): number {
  const scale = Math.max(1e-30, ...expected.values.map(Math.abs).filter(Number.isFinite));
  return actual.values.reduce(
    (worst, value, index) =>
      // Minus infinity is what it should be, or it is not.
      value === expected.values[index]
        ? worst
        : Math.max(worst, Math.abs(value - expected.values[index]!) / scale),
    actual.values.length === expected.values.length ? 0 : Number.POSITIVE_INFINITY,
  );
}

/** Random values for every leaf of a training graph over packed sequences of these lengths, padded to a multiple. */
export function batchValues(
  { parameters, language }: Recorded,
  lengths: readonly number[],
  multiple: number,
): Map<string, ReferenceTensor> {
  const stream = new PhiloxStream(11, 5);
  const { facts } = language;
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const padding = (multiple - (total % multiple)) % multiple;
  const all = padding === 0 ? lengths : [...lengths, padding];
  const packed = packSequences(
    all.map((length) => Array.from({ length }, () => stream.nextBelow(facts.vocabularySize))),
    facts,
  );
  const { tokens, positions, offsets, targets } = packed;
  if (padding > 0) targets.fill(-1, total);
  const values = new Map<string, ReferenceTensor>();
  for (const [name, data] of Object.entries({ tokens, positions, offsets, targets })) {
    values.set(name, { shape: [data.length], values: Float64Array.from(data) });
  }
  values.set("weight", { shape: [], values: Float64Array.of(1 / packed.targetCount) });
  let seed = 100;
  for (const { name, shape, initializer } of parameters.values()) {
    const noise = randomTensor(seed++, shape);
    const base = initializer.kind === "constant" ? initializer.value : 0;
    values.set(name, { shape, values: noise.values.map((value) => value + base) });
  }
  for (const { name, shape } of parameters.values()) {
    values.set(`gradient ${name}`, { shape, values: new Float64Array(elementCount(shape)) });
  }
  return values;
}

/** What a mesh of ranks computes, beside what one rank does. */
export interface Compared {
  readonly sharded: readonly ShardedTraining[];
  /** The largest relative difference of any output. */
  readonly worst: number;
  readonly worstName: string;
}

/** Shards a recorded training over a mesh, evaluates all ranks in lockstep and holds them against one rank. */
export function compareMesh(
  recorded: Recorded,
  table: ShardingTable,
  sizes: Partial<MeshSizes>,
  lengths: readonly number[],
): Compared {
  const multiple = (sizes.tensor ?? 1) * (sizes.sequence ?? 1);
  const values = batchValues(recorded, lengths, multiple);
  const expected = evaluate(recorded.graph, values, symbolsOf(values, 1));
  return compareWith(recorded, table, sizes, values, expected, multiple);
}

function symbolsOf(values: ReadonlyMap<string, ReferenceTensor>, multiple: number): SymbolValues {
  const tokens = values.get("tokens")!.shape[0]! / multiple;
  return { tokens, offsets: values.get("offsets")!.shape[0]! };
}

function compareWith(
  recorded: Recorded,
  table: ShardingTable,
  sizes: Partial<MeshSizes>,
  values: ReadonlyMap<string, ReferenceTensor>,
  expected: ReadonlyMap<string, ReferenceTensor>,
  multiple: number,
): Compared {
  const symbols = symbolsOf(values, multiple);
  const { worldSize } = new Mesh(sizes, 0);
  const meshes = Array.from({ length: worldSize }, (_, rank) => new Mesh(sizes, rank));
  const sharded = meshes.map((mesh) => shardTraining(recorded.graph, mesh, recorded.parameters, table));
  const locals = meshes.map((mesh) => localParameters(mesh, recorded.parameters, table));
  for (const { graph } of sharded) verifyGraph(graph);
  const leaves = sharded.map((part, rank) =>
    localLeaves(part, locals[rank]!, meshes[rank]!, values, symbols),
  );
  const results = evaluateRanks(
    sharded.map(({ graph }) => graph),
    leaves,
    {
      symbols,
      membersOf: (axes, rank) => meshes[rank]!.membersOf(axes.split("+") as MeshAxis[]),
    },
  );
  let [worst, worstName] = [0, ""];
  meshes.forEach((mesh, rank) => {
    const boxes = new Map(locals[rank]!.map(({ name, box }) => [`gradient ${name}`, box]));
    for (const [name, whole] of expected) {
      const box = boxes.get(name) ?? { starts: whole.shape.map(() => 0), sizes: whole.shape };
      const terms = mesh.membersOf(["sequence"]).map((member) => results[member]!.get(name)!);
      const summed: ReferenceTensor = {
        shape: terms[0]!.shape,
        values: terms[0]!.values.map((_, index) => terms.reduce((sum, term) => sum + term.values[index]!, 0)),
      };
      const apart = difference(summed, boxPart(whole, box));
      if (!(apart <= worst)) [worst, worstName] = [apart, name];
    }
  });
  return { sharded, worst, worstName };
}

/** A rank's leaves: its boxes of parameters, and the parts of the batch that it reads. */
function localLeaves(
  sharded: ShardedTraining,
  parameters: readonly LocalParameter[],
  mesh: Mesh,
  values: ReadonlyMap<string, ReferenceTensor>,
  symbols: SymbolValues,
): Map<string, ReferenceTensor> {
  const local = new Map<string, ReferenceTensor>();
  for (const name of leavesOf(sharded.graph).keys()) {
    const whole = values.get(name);
    const box = parameters.find((parameter) => parameter.name === name.replace(/^gradient /, ""))?.box;
    if (whole !== undefined) local.set(name, box === undefined ? whole : boxPart(whole, box));
  }
  for (const { name, source, layout, shape } of sharded.inputs) {
    const whole = values.get(source)!;
    const sizes = resolveShape(shape, symbols);
    const starts = sizes.map((size, dimension) => {
      let index = 0;
      for (const axis of layout.dimensions[dimension]!) index = index * mesh.sizes[axis] + mesh.place[axis];
      return index * size;
    });
    local.set(name, boxPart(whole, { starts, sizes }));
  }
  return local;
}
