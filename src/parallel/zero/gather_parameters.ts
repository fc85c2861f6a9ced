import { InternalError } from "../../base/errors.ts";
import { cast, leaf, reshape } from "../../graph/build.ts";
import {
  type AnyNode,
  apply,
  createNode,
  dtypeOf,
  type Graph,
  type Node,
  sameValue,
  shapeOf,
  type Value,
  withInputs,
} from "../../graph/graph.ts";
import type { RankGroup } from "../../graph/ops.ts";
import { inScope } from "../../graph/scope.ts";
import { chooseSpans, type LiveSpan, liveAt, type SpanLimits } from "./live_spans.ts";
import type { PartitionedParameter } from "./partition.ts";
import { dequantize, nodesBehind, type QuantizedValue, quantize, weightFormat } from "./quantized.ts";

/** How parameters that ranks keep in parts are made whole. */
export interface ParameterGathering extends SpanLimits {
  /** The parameter of a leaf; undefined for other leaves. */
  readonly parameterOf: (leaf: string) => PartitionedParameter | undefined;
  /** Elements gathered by one collective, one collective ahead of their use; 0: each at its use. */
  readonly bucket: number;
  /** Sends whole numbers instead of floats. */
  readonly quantized: boolean;
}

/** A parameter in a dtype in which it is read: parts are rounded before they are gathered. */
interface Form {
  readonly parameter: PartitionedParameter;
  /** What readers read now. */
  readonly value: Value;
  /** The part that this rank keeps, in the same dtype; and as it is sent, where that is quantized. */
  readonly part: Value;
  readonly quantizedPart: QuantizedValue | undefined;
  readonly elements: number;
  readonly reads: readonly number[];
}

type Span = LiveSpan<Form>;

/** Gathers that stay apart from each other although they give the same: their numbers follow those of recomputation. */
const firstTag = 2 ** 20;

/**
 * Turns leaves of parameters that ranks keep in parts into leaves of the part, and gathers them just before they are
 * used: once for every span of reads that lie close together, a bucket at a time, one bucket ahead (Rajbhandari et
 * al., "ZeRO-Infinity", arXiv 2104.07857, section 5). Runs after recomputation, when all reads stand in order.
 */
export function gatherParameters(graph: Graph, gathering: ParameterGathering): Graph {
  const forms = collectForms(graph, gathering);
  if (forms.length === 0) return graph;
  const spans = chooseSpans(forms, gathering);
  const firstSpans = new Set(forms.map((form) => spans.find((span) => span.form === form)!));
  const groupOf = (span: Span): RankGroup => {
    const { group, secondary } = span.form.parameter;
    return firstSpans.has(span) ? group : (secondary ?? group);
  };
  const secondaryOf = (span: Span): SecondaryPart | undefined =>
    firstSpans.has(span) ? undefined : kept.get(span.form);
  const before = new Map<number, AnyNode[]>();
  const at = (position: number): AnyNode[] => {
    const present = before.get(position) ?? [];
    before.set(position, present);
    return present;
  };
  const gathered = new Map<Span, Value>();
  const kept = new Map<Form, SecondaryPart>();
  let earlier: readonly Span[] | undefined;
  bucketsOf(spans, gathering.bucket, groupOf).forEach((bucket, index) => {
    const first = bucket[0]!.first;
    const group = groupOf(bucket[0]!);
    // What is gathered from secondary parts must wait for them.
    const made = Math.max(0, ...bucket.map((span) => secondaryOf(span)?.position ?? 0));
    const before = gathering.bucket === 0 ? first : earlier === undefined ? 0 : earlier[0]!.first;
    const ahead = Math.max(made, before);
    const start = fits(spans, bucket, ahead, first, gathering.maximumLive) ? ahead : first;
    inScope(graph.nodes[first]!.scope, () => {
      const operands = bucket.flatMap((span) => {
        const { quantizedPart, part } = span.form;
        const near = secondaryOf(span);
        if (near !== undefined) return [near.value];
        return quantizedPart === undefined ? [part] : [quantizedPart.values, quantizedPart.scales];
      });
      const node = createNode(
        "all_gather",
        operands,
        { group, dimension: 0 },
        { recomputed: firstTag + index },
      );
      at(start).push(node);
      let output = 0;
      bucket.forEach((span) => {
        const { secondary, padded, part } = span.form.parameter;
        let whole: Value = { node, index: output++ };
        if (span.form.quantizedPart !== undefined && secondaryOf(span) === undefined) {
          const received = { values: whole, scales: { node, index: output++ } };
          const floats = dequantize(received, part, weightFormat, dtypeOf(span.form.value));
          whole = reshape(floats, [padded]);
          at(span.first).push(floats.node as AnyNode, whole.node as AnyNode);
        }
        if (secondary !== undefined && firstSpans.has(span)) {
          const value = secondaryPart(whole, secondary);
          at(span.first).push(value.node as AnyNode);
          kept.set(span.form, { value, position: span.first });
        }
        const shaped = wholeParameter(span.form, whole);
        at(span.first).push(...shaped.nodes);
        gathered.set(span, shaped.value);
      });
    });
    earlier = bucket;
  });
  return replaceReads(graph, forms, spans, gathered, before);
}

/** The largest number of elements that one block of a model reads of the parameters given. */
export function largestBlock(
  graph: Graph,
  parameterOf: (leaf: string) => PartitionedParameter | undefined,
): number {
  const blocks = new Map<number, number>();
  const seen = new Set<string>();
  let largest = 1;
  for (const { inputs, scope } of graph.nodes) {
    for (const { node } of inputs) {
      if (node.op !== "leaf") continue;
      const { name } = (node as Node<"leaf">).attributes;
      const parameter = parameterOf(name);
      if (parameter === undefined || seen.has(name)) continue;
      seen.add(name);
      if (scope.block === undefined) continue;
      const elements = (blocks.get(scope.block) ?? 0) + parameter.elements;
      blocks.set(scope.block, elements);
      largest = Math.max(largest, elements);
    }
  }
  return largest;
}

function collectForms(graph: Graph, { parameterOf, quantized }: ParameterGathering): Form[] {
  const forms: Form[] = [];
  graph.nodes.forEach((node) => {
    if (node.op !== "leaf") return;
    const { name, kind, dtype } = node.attributes;
    const parameter = parameterOf(name);
    if (parameter?.parameter !== "part") return;
    const whole: Value = { node, index: 0 };
    if (graph.outputs.some(({ value, target }) => sameValue(value, whole) || target?.node === node)) {
      throw new InternalError(`program ${graph.name} stores the partitioned parameter "${name}"`);
    }
    const part = leaf(name, kind, [parameter.part], dtype);
    const casts = graph.nodes.filter(({ op, inputs }) => op === "cast" && sameValue(inputs[0]!, whole));
    const values = [whole, ...casts.map((cast): Value => ({ node: cast, index: 0 }))];
    for (const value of values) {
      const reads = graph.nodes.flatMap((reader, position) => {
        const isForm = value === whole && casts.includes(reader);
        return !isForm && reader.inputs.some((input) => sameValue(input, value)) ? [position] : [];
      });
      if (reads.length === 0) continue;
      const converted = inScope(value.node.scope, () => cast(part, dtypeOf(value)));
      const row = (): Value => reshape(converted, [1, parameter.part]);
      const quantizedPart = quantized
        ? inScope(value.node.scope, () => quantize(row(), weightFormat))
        : undefined;
      forms.push({
        ...{ parameter, value, quantizedPart, reads },
        part: converted,
        elements: parameter.elements,
      });
    }
  });
  return forms;
}

/** The part of a gathered parameter that a rank keeps for the backward pass, and where it is made. */
interface SecondaryPart {
  readonly value: Value;
  readonly position: number;
}

function secondaryPart(whole: Value, { size, rank }: RankGroup): Value {
  const part = (shapeOf(whole)[0] as number) / size;
  return apply("slice", [whole], { starts: [rank * part], sizes: [part] });
}

/** Spans of one group, in the order of their first reads, as many together as a bucket holds. */
function bucketsOf(spans: readonly Span[], size: number, groupOf: (span: Span) => RankGroup): Span[][] {
  const buckets: Span[][] = [];
  let elements = 0;
  for (const span of spans) {
    const open = buckets.at(-1);
    const { axes } = groupOf(span);
    elements += span.form.elements;
    if (open !== undefined && groupOf(open[0]!).axes === axes && elements <= size) open.push(span);
    else {
      buckets.push([span]);
      elements = span.form.elements;
    }
  }
  return buckets;
}

/** Whether a bucket may be there from `start` on, before its first read. */
function fits(
  spans: readonly Span[],
  bucket: readonly Span[],
  start: number,
  first: number,
  maximum: number,
): boolean {
  const needed = bucket.reduce((sum, { form }) => sum + form.elements, 0);
  const positions = [...new Set(spans.map((span) => span.first))].filter((at) => at >= start && at < first);
  return positions.every((position) => liveAt(spans, position) + needed <= maximum);
}

/** The gathered parts without padding, in the parameter's shape. */
function wholeParameter(form: Form, gathered: Value): { value: Value; nodes: AnyNode[] } {
  const { elements, padded } = form.parameter;
  const nodes: AnyNode[] = [];
  let value = gathered;
  if (padded !== elements) {
    value = apply("slice", [value], { starts: [0], sizes: [elements] });
    nodes.push(value.node as AnyNode);
  }
  const shaped = reshape(value, shapeOf(form.value));
  if (shaped !== value) nodes.push(shaped.node as AnyNode);
  return { value: shaped, nodes };
}

function replaceReads(
  graph: Graph,
  forms: readonly Form[],
  spans: readonly Span[],
  gathered: ReadonlyMap<Span, Value>,
  before: ReadonlyMap<number, readonly AnyNode[]>,
): Graph {
  const dropped = new Set<Node>(forms.map(({ value }) => value.node));
  const rebuilt = new Map<Node, AnyNode>();
  const read = (input: Value, position: number): Value => {
    if (dropped.has(input.node)) {
      const span = spans.find(
        ({ form, first, last }) => sameValue(form.value, input) && first <= position && position <= last,
      )!;
      return gathered.get(span)!;
    }
    const node = rebuilt.get(input.node);
    return node === undefined ? input : { node, index: input.index };
  };
  // The parts as they are sent, each after what it is made of: what every gather reads.
  const parts = new Set<AnyNode>();
  for (const { part, quantizedPart } of forms) {
    const sent = quantizedPart?.values ?? part;
    const behind = nodesBehind(sent, parts);
    for (const { inputs } of [...behind, part.node]) {
      for (const { node } of inputs) if (node.op === "leaf") parts.add(node as AnyNode);
    }
    if (part.node.op === "leaf") parts.add(part.node as AnyNode);
    for (const node of behind) parts.add(node);
  }
  const nodes: AnyNode[] = [...parts];
  graph.nodes.forEach((node, position) => {
    nodes.push(...(before.get(position) ?? []));
    if (dropped.has(node) || isPartitionedLeaf(node, forms)) return;
    const next = withInputs(
      node,
      node.inputs.map((input) => read(input, position)),
    );
    if (next !== node) rebuilt.set(node, next);
    nodes.push(next);
  });
  const outputs = graph.outputs.map((output) => {
    const node = rebuilt.get(output.value.node);
    return node === undefined ? output : { ...output, value: { node, index: output.value.index } };
  });
  return { ...graph, nodes, outputs };
}

function isPartitionedLeaf(node: AnyNode, forms: readonly Form[]): boolean {
  return node.op === "leaf" && forms.some(({ parameter }) => parameter.local.name === node.attributes.name);
}
