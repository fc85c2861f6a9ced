import { InternalError, ShapeError } from "../base/errors.ts";
import { formatShape } from "../base/shape.ts";
import { add, fill } from "./build.ts";
import { buildGraph, dtypeOf, type Node, shapeOf, type Value } from "./graph.ts";
import type { OpName } from "./ops.ts";
import { type GradientRule, gradientRules, type NotDifferentiable } from "./rules/gradient.ts";
import { inScope } from "./scope.ts";

function key(value: Value): string {
  return `${value.node.id}.${value.index}`;
}

/**
 * The gradients of a scalar with respect to values, by walking the graph backwards (reverse-mode automatic
 * differentiation). The result is made of ops and can be differentiated again. A value that the loss does
 * not depend on gets zeros.
 * @param seed the gradient of the loss itself; 1 by default, or a loss scale.
 * @throws ShapeError where the loss is not a scalar, or passes through an op without a derivative.
 */
export function gradients(loss: Value, withRespectTo: readonly Value[], seed?: Value): Value[] {
  if (shapeOf(loss).length !== 0) {
    throw new ShapeError("loss_not_scalar", "only a scalar can be differentiated", {
      expected: "a loss of shape []",
      received: formatShape(shapeOf(loss)),
      hint: "take its sum or mean first",
    });
  }
  const nodes = buildGraph("loss", [{ name: "loss", value: loss }]).nodes;
  const reaches = markDependents(nodes, withRespectTo);
  const collected = new Map<string, Value>();
  const deposit = (target: Value, gradient: Value): void => {
    const present = collected.get(key(target));
    collected.set(key(target), present === undefined ? gradient : add(present, gradient));
  };
  deposit(loss, seed ?? fill(1, [], dtypeOf(loss)));
  for (const node of [...nodes].reverse()) {
    if (!reaches.has(node)) continue;
    const incoming = node.outputs.map((_, index) => collected.get(key({ node, index })));
    if (incoming.every((gradient) => gradient === undefined) || node.op === "leaf") continue;
    const outgoing = inScope({ ...node.scope, phase: "backward" }, () => differentiate(node, incoming));
    outgoing.forEach((gradient, position) => {
      const input = node.inputs[position];
      if (input === undefined) throw new InternalError(`the gradient of ${node.op} has too many results`);
      if (gradient === undefined || !reaches.has(input.node)) return;
      inScope({ ...input.node.scope, phase: "backward" }, () => deposit(input, gradient));
    });
  }
  return withRespectTo.map((value) => collected.get(key(value)) ?? fill(0, shapeOf(value), dtypeOf(value)));
}

function differentiate(node: Node, incoming: readonly (Value | undefined)[]): readonly (Value | undefined)[] {
  const rule = gradientRules[node.op] as GradientRule<OpName> | NotDifferentiable;
  if (typeof rule === "function") return rule(node, incoming);
  throw new ShapeError("not_differentiable", `${node.op} cannot be differentiated: ${rule.reason}`, {
    ...(node.scope.name === "" ? {} : { where: node.scope.name }),
  });
}

/** The nodes whose results depend on any of the values. */
function markDependents(nodes: readonly Node[], values: readonly Value[]): Set<Node> {
  const wanted = new Set(values.map((value) => value.node));
  const marked = new Set<Node>();
  for (const node of nodes) {
    if (wanted.has(node) || node.inputs.some((input) => marked.has(input.node))) marked.add(node);
  }
  return marked;
}
