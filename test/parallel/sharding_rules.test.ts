import { describe, expect, test } from "vitest";
import type { Box } from "../../src/base/pieces.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount, stridesOf } from "../../src/base/shape.ts";
import { leaf } from "../../src/graph/build.ts";
import { type AnyNode, typeOf } from "../../src/graph/graph.ts";
import { isCollective, type OpName, opNames } from "../../src/graph/ops.ts";
import { applyRule, type ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { Mesh } from "../../src/parallel/mesh.ts";
import { localNode } from "../../src/parallel/sharding/emit.ts";
import { type Layout, localShape, placeOf } from "../../src/parallel/sharding/layout.ts";
import { type NodePlan, strategiesOf, wholePlan } from "../../src/parallel/sharding/strategies.ts";
import { evaluateNodes, tensorOf } from "../../src/runtime/reference/evaluate.ts";
import { graphOf, type OpSamples, referenceLeaves, type Sample } from "../conformance/samples/sample.ts";
import { samples } from "../conformance/samples.ts";
import { boxPart, difference } from "./sharding_support.ts";

/**
 * The table of sharding rules against what ops mean: every legal way to cut every op's samples over 2 or 3 ranks,
 * each rank computing its part by the reference semantics, gives the whole result when the parts are put together.
 */
const dtype = "f32";

function boxFor(layout: Layout, shape: readonly number[], mesh: Mesh): Box {
  const sizes = localShape(shape, layout, mesh.sizes) as number[];
  const cut = placeOf(layout, "tensor");
  return { starts: sizes.map((size, axis) => (axis === cut ? size * mesh.place.tensor : 0)), sizes };
}

/** What a rank holds of a tensor: its box, or a random term of a sum. */
function localPart(
  whole: ReferenceTensor,
  layout: Layout,
  mesh: Mesh,
  terms: ReferenceTensor[],
): ReferenceTensor {
  if (placeOf(layout, "tensor") === "partial") return terms[mesh.rank]!;
  return boxPart(whole, boxFor(layout, whole.shape, mesh));
}

/** Random terms that add up to a tensor. */
function splitSum(whole: ReferenceTensor, count: number): ReferenceTensor[] {
  const stream = new PhiloxStream(3, 1);
  const terms = Array.from({ length: count - 1 }, () => whole.values.map(() => stream.nextFloat() - 0.5));
  const last = whole.values.map((value, index) => terms.reduce((rest, term) => rest - term[index]!, value));
  return [...terms, last].map((values) => ({ shape: whole.shape, values }));
}

/** Puts the ranks' parts of a result together. */
function together(
  parts: readonly ReferenceTensor[],
  layout: Layout,
  shape: readonly number[],
  ranks: number,
) {
  const values = new Float64Array(elementCount(shape));
  if (placeOf(layout, "tensor") === "partial") {
    for (const part of parts) for (const [index, value] of part.values.entries()) values[index]! += value;
    return { shape, values };
  }
  const strides = stridesOf(shape);
  parts.forEach((part, rank) => {
    const { starts, sizes } = boxFor(layout, shape, new Mesh({ tensor: ranks }, rank));
    const inner = stridesOf(sizes);
    part.values.forEach((value, index) => {
      const at = sizes.reduce(
        (place, size, axis) =>
          place + (starts[axis]! + (Math.floor(index / inner[axis]!) % size)) * strides[axis]!,
        0,
      );
      values[at] = value;
    });
  });
  return { shape, values };
}

function isWhole({ inputs, outputs }: NodePlan): boolean {
  return [...inputs, ...outputs].every((layout) => placeOf(layout, "tensor") === undefined);
}

/** Checks one way to cut a node; returns the largest relative difference. */
function checkPlan(node: AnyNode, plan: NodePlan, inputs: readonly ReferenceTensor[], ranks: number): number {
  const shapes = node.outputs.map(({ shape }) => shape as number[]);
  const expected = applyRule(node, inputs, shapes);
  const terms = inputs.map((input) => splitSum(input, ranks));
  const results = Array.from({ length: ranks }, (_, rank) => {
    const mesh = new Mesh({ tensor: ranks }, rank);
    const local = inputs.map((input, index) => localPart(input, plan.inputs[index]!, mesh, terms[index]!));
    const leaves = local.map(({ shape }, index) =>
      leaf(`x${index}`, "input", shape, typeOf(node.inputs[index]!).dtype),
    );
    const own = localNode(node, leaves, localShape(shapes[0]!, plan.outputs[0]!, mesh.sizes));
    const localShapes = own.outputs.map(({ shape }) => shape as number[]);
    plan.outputs.forEach((layout, index) => {
      expect(localShapes[index]).toEqual(localShape(shapes[index]!, layout, mesh.sizes));
    });
    return applyRule(own, local, localShapes).map((values, index) => ({
      shape: localShapes[index]!,
      values,
    }));
  });
  return Math.max(
    ...shapes.map((shape, index) => {
      const parts = results.map((result) => result[index]!);
      const joined = together(parts, plan.outputs[index]!, shape, ranks);
      return difference(joined, { shape, values: expected[index]! });
    }),
  );
}

/** Ops with no way to be cut: opaque layouts, and numbers counted over the whole. */
const uncut = new Set<OpName>([
  "constant",
  "random",
  "pack_matrix",
  "repack_blocks",
  "quantize_matrix",
  "dequantize_matrix",
  "sample",
  "quantize_blocks",
  "dequantize_blocks",
]);

describe("every way to cut an op computes the whole", () => {
  test.each(opNames.filter((op) => op !== "leaf" && !isCollective(op)))("%s", (op) => {
    const { dtypes, make } = samples[op] as OpSamples<OpName>;
    const chosen = dtypes.includes(dtype) ? dtype : dtypes[0]!;
    let checked = 0;
    for (const sample of make(chosen) as Sample<OpName>[]) {
      if (sample.inputs.some(({ values }) => values.length > 20_000)) continue;
      const graph = graphOf(op, sample);
      const values = evaluateNodes(graph, referenceLeaves(sample));
      const node = graph.nodes.find((candidate) => candidate.op === op && candidate.inputs.length > 0);
      const found = node ?? graph.nodes.find((candidate) => candidate.op === op)!;
      const inputs = found.inputs.map((input) => tensorOf(values, input));
      for (const ranks of [2, 3, 5, 7]) {
        const { sizes } = new Mesh({ tensor: ranks }, 0);
        for (const plan of strategiesOf(found, wholePlan(found), "tensor", sizes)) {
          if (isWhole(plan)) continue;
          const how = `${sample.name}: ${JSON.stringify(plan.choices)} over ${ranks}`;
          expect(checkPlan(found, plan, inputs, ranks), how).toBeLessThan(1e-12);
          checked++;
        }
      }
    }
    if (uncut.has(op)) expect(checked).toBe(0);
    else expect(checked).toBeGreaterThan(0);
  });
});
