import { add, cast, leaf, reshape } from "../../graph/build.ts";
import {
  type AnyNode,
  apply,
  createNode,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { inScope } from "../../graph/scope.ts";
import { isShared, type PartitionedParameter } from "./partition.ts";
import { nodesBehind, quantizeGradient, sumOfRows } from "./quantized.ts";

/** How gradients are summed over ranks. */
export interface GradientReduction {
  /** The parameter of a gradient's leaf; undefined for other leaves. */
  readonly parameterOf: (leaf: string) => PartitionedParameter | undefined;
  /** Elements that one collective sums: it starts as soon as so many are there. */
  readonly bucket: number;
  /** Whether a sum may run beside the kernels after it; otherwise it is waited for at once. */
  readonly overlap: boolean;
  /** The leaf of what a gradient, given by its leaf, did not send; undefined where nothing is lost. */
  readonly residualOf: ((leaf: string) => string) | undefined;
}

/** The gradient of one parameter, before it is summed over ranks. */
interface LocalGradient {
  readonly parameter: PartitionedParameter;
  /** Where its terms go; the first says whether to add. */
  readonly outputs: readonly GraphOutput[];
  /** The node that makes each term, or one of those before it if that comes later; the last one is `place`. */
  readonly places: readonly number[];
  readonly place: number;
}

/**
 * Sums the gradients of a graph over the ranks of their groups, as soon as a bucket of them is there: whole ones by
 * all_reduce, where a rank keeps its part by reduce_scatter. Both add the same terms in the same order: no bit differs
 * between them. Targets become leaves of what the rank keeps.
 */
export function reduceGradients(graph: Graph, reduction: GradientReduction): Graph {
  const gradients = collectGradients(graph, reduction);
  if (gradients.length === 0) return graph;
  const inserted = new Map<number, AnyNode[]>();
  const reduced = new Map<GraphOutput, GraphOutput>();
  const targets = new Map<Node, AnyNode>();
  const residuals: GraphOutput[] = [];
  const leaves: AnyNode[] = [];
  for (const bucket of bucketsOf(gradients, reduction.bucket)) {
    const place = bucket.at(-1)!.place;
    const made = inserted.get(place) ?? [];
    inserted.set(place, made);
    const record = (value: Value, position = place): Value => {
      const there = inserted.get(position) ?? [];
      inserted.set(position, there);
      there.push(value.node as AnyNode);
      return value;
    };
    inScope({ ...graph.nodes[place]!.scope, phase: "backward" }, () => {
      const { group, replicas, gradient: share } = bucket[0]!.parameter;
      let sums = bucket.map((gradient) => wholeGradient(gradient, record));
      const collective = (node: AnyNode): void => {
        made.push(node);
        sums = sums.map((_, index) => ({ node, index }));
      };
      const { residualOf } = reduction;
      if (share === "part" && residualOf !== undefined) {
        const known = new Set<Node>(graph.nodes);
        const keep = (value: Value): void => {
          for (const node of nodesBehind(value, known)) {
            if (!made.includes(node)) made.push(node);
          }
        };
        const sent = sums.map((sum, index) => {
          const { name } = bucket[index]!.outputs[0]!.target!.node.attributes;
          const residual = leaf(residualOf(name), "state", shapeOf(sum), "f32");
          leaves.push(residual.node as AnyNode);
          const quantized = quantizeGradient(sum, residual, group);
          keep(quantized.sent.values);
          keep(quantized.residual);
          residuals.push({ name: residualOf(name), value: quantized.residual, target: residual });
          return quantized.sent;
        });
        const operands = sent.flatMap(({ values, scales }) => [values, scales]);
        const node = createNode("all_to_all", operands, { group, split: 0, concatenate: 0 });
        made.push(node);
        sums = bucket.map(({ parameter: { part } }, index) => {
          const received = { values: { node, index: 2 * index }, scales: { node, index: 2 * index + 1 } };
          const total = sumOfRows(received, part);
          keep(total);
          return total;
        });
      } else if (share === "part") collective(createNode("reduce_scatter", sums, { group, dimension: 0 }));
      else if (group.size > 1) collective(createNode("all_reduce", sums, { group }));
      if (replicas !== undefined) collective(createNode("all_reduce", sums, { group: replicas }));
      // A reader of its own makes the program wait.
      if (!reduction.overlap) sums = sums.map((sum) => record(copyOf(sum)));
      bucket.forEach(({ outputs, parameter }, index) => {
        const output = outputs[0]!;
        const target = output.target!;
        let kept = target;
        if (share === "part") {
          const { name, kind } = target.node.attributes;
          kept = leaf(name, kind, [parameter.part], "f32");
          targets.set(target.node, kept.node);
        }
        reduced.set(output, { ...output, value: sums[index]!, target: kept });
      });
    });
  }
  const replaced = new Set(gradients.flatMap(({ outputs }) => outputs));
  return {
    ...graph,
    nodes: [
      ...leaves,
      ...graph.nodes.flatMap((node, index) => [targets.get(node) ?? node, ...(inserted.get(index) ?? [])]),
    ],
    outputs: [
      ...graph.outputs.flatMap((output) => {
        const kept = reduced.get(output) ?? (replaced.has(output) ? undefined : output);
        return kept === undefined ? [] : [kept];
      }),
      ...residuals,
    ],
  };
}

function collectGradients(graph: Graph, { parameterOf }: GradientReduction): LocalGradient[] {
  const position = new Map<Node, number>(graph.nodes.map((node, index) => [node, index]));
  const byTarget = new Map<string, { parameter: PartitionedParameter; outputs: GraphOutput[] }>();
  for (const output of graph.outputs) {
    const name = output.target?.node.attributes.name;
    const parameter = name === undefined ? undefined : parameterOf(name);
    if (name === undefined || parameter === undefined || !isShared(parameter)) continue;
    const present = byTarget.get(name);
    if (present === undefined) byTarget.set(name, { parameter, outputs: [output] });
    else present.outputs.push(output);
  }
  return [...byTarget.values()]
    .map(({ parameter, outputs }) => {
      // Leaves of gradients are recorded after all work: nothing reads them, so they hold up no reduction.
      let place = 0;
      const places = outputs.map(({ value }) => {
        place = Math.max(place, position.get(value.node)!);
        return place;
      });
      return { parameter, outputs, places, place };
    })
    .sort((a, b) => a.place - b.place);
}

/** Gradients of one group and kind, in the order in which they are made, until a bucket is full. */
function bucketsOf(gradients: readonly LocalGradient[], size: number): LocalGradient[][] {
  const open = new Map<string, LocalGradient[]>();
  const full: LocalGradient[][] = [];
  for (const gradient of gradients) {
    const { group, gradient: share } = gradient.parameter;
    const key = `${group.axes} ${share}`;
    const bucket = open.get(key) ?? [];
    bucket.push(gradient);
    open.set(key, bucket);
    if (bucket.reduce((sum, { parameter }) => sum + parameter.elements, 0) < size) continue;
    full.push(bucket);
    open.delete(key);
  }
  return [...full, ...open.values()];
}

function copyOf(value: Value): Value {
  const sizes = shapeOf(value);
  return apply("slice", [value], { starts: sizes.map(() => 0), sizes });
}

/** The sum of a gradient's terms, f32; flattened and padded where each rank keeps its part. */
function wholeGradient(
  { parameter, outputs, places }: LocalGradient,
  record: (value: Value, position?: number) => Value,
): Value {
  // Added up as they are made: of many terms two are there at a time.
  const terms = outputs.map(({ value }, index) => {
    const converted = cast(value, "f32");
    return converted === value ? value : record(converted, places[index]);
  });
  const sum = terms.reduce((total, term, index) => record(add(total, term), places[index]));
  if (parameter.gradient === "whole") return sum;
  const { elements, padded } = parameter;
  const reshaped = reshape(sum, [elements]);
  const flat = reshaped === sum ? sum : record(reshaped);
  return padded === elements ? flat : record(apply("pad_into", [flat], { starts: [0], shape: [padded] }));
}
