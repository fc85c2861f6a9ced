import type { TensorType, Value } from "../../graph/graph.ts";
import { type AnyNode, typeOf } from "../../graph/graph.ts";
import { type Label, type OpSharding, shardingOf } from "../../graph/rules/sharding.ts";
import { type MeshAxis, type MeshSizes, meshAxes } from "../mesh.ts";
import { divides, type Layout, partsOf, replicated, withCut, withPartial } from "./layout.ts";

/** How a node is computed: what its operands must be laid out like, and how its results come out. */
export interface NodePlan {
  readonly inputs: readonly Layout[];
  readonly outputs: readonly Layout[];
  /** What each axis does, such as `tensor cuts columns`; axes that do nothing are left out. */
  readonly choices: readonly Choice[];
}

/** What one axis of the mesh does to a node. */
export interface Choice {
  readonly axis: MeshAxis;
  /** The label that it cuts; undefined where the node's operands and results are terms of sums over it. */
  readonly label: string | undefined;
}

/** A node that every rank computes as a whole. */
export function wholePlan(node: AnyNode): NodePlan {
  const layouts = (values: readonly TensorType[]): Layout[] =>
    values.map(({ shape }) => replicated(shape.length));
  return { inputs: layouts(node.inputs.map(typeOf)), outputs: layouts(node.outputs), choices: [] };
}

/**
 * The ways in which one more axis can take part in a node that is planned for others: not at all, by cutting a
 * label, or by letting sums pass through that are still to be made. The one that does nothing comes first.
 */
export function strategiesOf(
  node: AnyNode,
  base: NodePlan,
  axis: MeshAxis,
  sizes: MeshSizes,
  attentionByTokens = false,
): NodePlan[] {
  if (attentionByTokens && (node.op === "attention" || node.op === "attention_gradient")) {
    return [cutTokens(node, base, axis)];
  }
  const rule = shardingOf(node);
  const labels = new Set([...rule.inputs, ...rule.outputs].flat().filter((label) => label !== null));
  const plans: NodePlan[] = [base];
  for (const label of labels) {
    const plan = cutLabel(node, rule, base, axis, label, sizes);
    if (plan !== undefined) plans.push(plan);
  }
  for (const operands of rule.linear) plans.push(passSums(base, axis, operands));
  return plans;
}

/** Attention over the tokens of a rank, which is to get those of the others from a later pass. */
function cutTokens(node: AnyNode, base: NodePlan, axis: MeshAxis): NodePlan {
  const cut = (layout: Layout, { shape }: TensorType): Layout => {
    // Queries, keys and values [tokens, heads, size]; statistics [heads, tokens]; offsets are of all ranks.
    const tokens = shape.length === 3 ? 0 : shape.length === 2 ? 1 : undefined;
    if (tokens === undefined) return layout;
    return withCut(layout, tokens, inOrder([...layout.dimensions[tokens]!, axis], true));
  };
  return {
    inputs: base.inputs.map((layout, index) => cut(layout, typeOf(node.inputs[index]!))),
    outputs: base.outputs.map((layout, index) => cut(layout, node.outputs[index]!)),
    choices: [...base.choices, { axis, label: "tokens" }],
  };
}

function cutLabel(
  node: AnyNode,
  rule: OpSharding,
  base: NodePlan,
  axis: MeshAxis,
  label: string,
  sizes: MeshSizes,
): NodePlan | undefined {
  const types: TensorType[] = [...node.inputs.map((value: Value) => typeOf(value)), ...node.outputs];
  const labels = [...rule.inputs, ...rule.outputs];
  const dimensions = types.flatMap(({ shape }, index) =>
    shape.filter((_, position) => labels[index]![position] === label),
  );
  const symbolic = dimensions.some((size) => typeof size !== "number");
  let legal = true;
  const cut = (layout: Layout, own: readonly Label[], { shape }: TensorType): Layout => {
    const position = own.indexOf(label);
    if (position < 0) return layout;
    const axes = inOrder([...layout.dimensions[position]!, axis], symbolic);
    if (own.lastIndexOf(label) !== position || !divides(shape[position]!, partsOf(axes, sizes)))
      legal = false;
    return withCut(layout, position, axes);
  };
  const inputs = base.inputs.map((layout, index) =>
    cut(layout, rule.inputs[index]!, typeOf(node.inputs[index]!)),
  );
  const outputs = base.outputs.map((layout, index) => {
    const own = rule.outputs[index]!;
    if (own.includes(label)) return cut(layout, own, node.outputs[index]!);
    return withPartial(layout, [...layout.partial, axis]);
  });
  return legal ? { inputs, outputs, choices: [...base.choices, { axis, label }] } : undefined;
}

/**
 * Which of two axes cuts outside. Symbolic dimensions are tokens: they lie by sequence first, and sequence-sharded
 * norms cut a rank's tokens further. Others are cut by weights first, and an exchange of tokens for heads cuts what
 * a rank has of them further.
 */
function inOrder(axes: readonly MeshAxis[], symbolic: boolean): MeshAxis[] {
  const ordered = meshAxes.filter((axis) => axes.includes(axis));
  return symbolic ? ordered : ordered.toReversed();
}

function passSums(base: NodePlan, axis: MeshAxis, operands: readonly number[]): NodePlan {
  const partial = (layout: Layout): Layout => withPartial(layout, [...layout.partial, axis]);
  return {
    inputs: base.inputs.map((layout, index) => (operands.includes(index) ? partial(layout) : layout)),
    outputs: base.outputs.map(partial),
    choices: [...base.choices, { axis, label: undefined }],
  };
}
