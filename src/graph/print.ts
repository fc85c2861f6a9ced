import { decode } from "../base/dtype.ts";
import { formatName, type QuantizedFormat } from "../base/quantized_format.ts";
import { formatShape } from "../base/shape.ts";
import { formatExpression } from "./expression.ts";
import type { AnyNode, Graph, Node, Value } from "./graph.ts";
import { formatType } from "./rules/shape.ts";

const constantsShown = 6;

/**
 * A graph as stable, readable text: nodes numbered densely in their order, one a line, then the outputs.
 *
 *     graph loss
 *     %0: f32[4, 8] = leaf {name: "x", kind: input}
 *     %1: f32[4, 8] = elementwise(%0, %0) {operation: add}  # model.layers.0
 *     output sum = %1
 *
 * Result i of a node of several results is `%3.i`. Attributes that have their usual value (`false`, `none`, a
 * window of 0), or that repeat the result's shape or dtype, are left out.
 */
export function printGraph(graph: Graph): string {
  const numbers = new Map(graph.nodes.map((node, position) => [node as Node, position]));
  const reference = (value: Value): string => {
    const number = numbers.get(value.node) ?? "?";
    return value.node.outputs.length === 1 ? `%${number}` : `%${number}.${value.index}`;
  };
  const lines = graph.nodes.map((node, position) => {
    const types = node.outputs.map(formatType).join(", ");
    const operands = node.inputs.length === 0 ? "" : `(${node.inputs.map(reference).join(", ")})`;
    const attributes = formatAttributes(node);
    return `%${position}: ${types} = ${node.op}${operands}${attributes}${formatPlace(node)}`;
  });
  for (const { name, value, target, accumulate } of graph.outputs) {
    const verb = accumulate === true ? "added into" : "into";
    const destination = target === undefined ? "" : ` ${verb} ${reference(target)}`;
    lines.push(`output ${name} = ${reference(value)}${destination}`);
  }
  return [`graph ${graph.name}`, ...lines].join("\n");
}

function formatPlace(node: AnyNode): string {
  const recomputed = node.recomputed === undefined ? "" : `recomputed ${node.recomputed}`;
  const phase = node.scope.phase === "backward" ? "backward" : "";
  const place = [node.scope.name, phase, recomputed].filter((part) => part !== "").join(", ");
  return place === "" ? "" : `  # ${place}`;
}

function formatAttributes(node: AnyNode): string {
  const parts = Object.entries(node.attributes)
    .filter(([key, value]) => !isUsual(key, value))
    .map(([key, value]) => `${key}: ${formatAttribute(node, key, value)}`);
  return parts.length === 0 ? "" : ` {${parts.join(", ")}}`;
}

/** Whether an attribute says nothing that the line does not say already. */
function isUsual(key: string, value: unknown): boolean {
  if (value === false || (key === "activation" && value === "none")) return true;
  if (key === "window" && value === 0) return true;
  return key === "shape" || key === "sizes" || key === "dtype";
}

function formatAttribute(node: AnyNode, key: string, value: unknown): string {
  if (node.op === "map" && key === "expression") return formatExpression(node.attributes.expression);
  if (node.op === "constant" && key === "data") {
    const { data, dtype } = node.attributes;
    const shown = [...decode(dtype, data.subarray(0, constantsShown))].join(", ");
    return data.length > constantsShown ? `[${shown}, … ${data.length} values]` : `[${shown}]`;
  }
  if (node.op === "matmul_quantized" && key === "weights") {
    const weights = node.attributes.weights.map(({ format, columns }) => `${columns} ${formatName(format)}`);
    return `[${weights.join(", ")}]`;
  }
  if (key === "format") return formatName(value as QuantizedFormat);
  if (Array.isArray(value)) return formatShape(value);
  return key === "name" ? JSON.stringify(value) : String(value);
}
