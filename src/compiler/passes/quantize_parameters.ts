import { InternalError, ShapeError } from "../../base/errors.ts";
import type { QuantizedParameter } from "../../base/quantized_format.ts";
import { packedBytes } from "../../base/quantized_format.ts";
import { formatShape, sameShape } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import {
  type AnyNode,
  apply,
  createNode,
  type Graph,
  isLeaf,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { rewrite } from "./rewrite.ts";

/** Parameters that are held quantized, by name. */
export type QuantizedParameters = ReadonlyMap<string, QuantizedParameter>;

/** Where an operand is a matrix of the map, and whether it is read as its transpose. */
interface Found {
  readonly name: string;
  readonly parameter: QuantizedParameter;
  readonly transposed: boolean;
}

function swapsLastAxes(value: Value): boolean {
  if (value.node.op !== "transpose") return false;
  const { permutation } = (value.node as Node<"transpose">).attributes;
  return permutation.length === 2 && permutation[0] === 1;
}

/** The quantized parameter behind casts and transposes. */
function find(value: Value, quantized: QuantizedParameters): Found | undefined {
  if (isLeaf(value)) {
    const { name } = value.node.attributes;
    const parameter = quantized.get(name);
    return parameter === undefined ? undefined : { name, parameter, transposed: false };
  }
  const found =
    value.node.op === "cast" || swapsLastAxes(value) ? find(value.node.inputs[0]!, quantized) : undefined;
  return found && { ...found, transposed: found.transposed !== swapsLastAxes(value) };
}

/**
 * Makes parameters leaves of packed bytes, and rewrites what reads them: products become quantizations of the left
 * operand's rows and products of bytes (epilogues stay), look-ups read packed rows, and the loss over an output
 * projection becomes a product and a loss over its logits. Each left operand is quantized once for all the weights
 * in groups of one size.
 * @throws InternalError where a quantized parameter is read in another way; ShapeError where it has another shape.
 */
export function quantizeParameters(graph: Graph, quantized: QuantizedParameters): Graph {
  if (quantized.size === 0) return graph;
  const leaves = new Map<string, Value>();
  const packedLeaf = (name: string, { format, rows, columns }: QuantizedParameter): Value => {
    let value = leaves.get(name);
    if (value === undefined) {
      value = leaf(name, "parameter", [packedBytes(format, rows, columns)], "u8");
      leaves.set(name, value);
    }
    return value;
  };
  const bytes = new Map<string, Node<"quantize_rows">>();
  const quantizeRows = (x: Value, group: number): Node<"quantize_rows"> => {
    const key = `${x.node.id}.${x.index} ${group}`;
    let node = bytes.get(key);
    if (node === undefined) {
      node = createNode("quantize_rows", [x], { group });
      bytes.set(key, node);
    }
    return node;
  };
  const product = (
    x: Value,
    { name, parameter }: Found,
    extra: readonly Value[],
    rest: Pick<Node<"matmul">["attributes"], "activation" | "bias" | "residual" | "dtype">,
  ): Value => {
    const { format, rows, columns } = parameter;
    const rowBytes = quantizeRows(x, format.group);
    const operands = rowBytes.outputs.map((_, index) => ({ node: rowBytes, index }));
    const { activation, bias, residual, dtype } = rest;
    return apply("matmul_quantized", [...operands, packedLeaf(name, parameter), ...extra], {
      weights: [{ format, columns: rows }],
      inner: columns,
      activation,
      bias,
      residual,
      dtype,
    });
  };
  checkShapes(graph, quantized);
  const result = rewrite(graph, (node, inputs) => {
    switch (node.op) {
      case "matmul": {
        const [x, weight, ...extra] = inputs as [Value, Value, ...Value[]];
        const found = find(weight, quantized);
        // A parameter that is stored [K, N] is quantized as its transpose: the loader sees to it.
        if (found === undefined || node.attributes.transposeA) return undefined;
        return [product(x, found, extra, node.attributes)];
      }
      case "linear_cross_entropy": {
        const [hidden, weight, targets] = inputs as [Value, Value, Value];
        const found = find(weight, quantized);
        if (found === undefined) return undefined;
        const plain = { activation: "none", bias: false, residual: false, dtype: "f32" } as const;
        const logits = product(hidden, found, [], plain);
        return [apply("cross_entropy", [logits, targets], {})];
      }
      case "embedding": {
        const [weight, ids] = inputs as [Value, Value];
        const found = find(weight, quantized);
        if (found === undefined || found.transposed) return undefined;
        const { name, parameter } = found;
        const attributes = { ...parameter, dtype: node.attributes.dtype };
        return [apply("embedding_quantized", [packedLeaf(name, parameter), ids], attributes)];
      }
      default:
        return undefined;
    }
  });
  return withoutLeaves(result, quantized);
}

/** A parameter is `[rows, columns]`, or its transpose. */
function checkShapes(graph: Graph, quantized: QuantizedParameters): void {
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    const parameter = quantized.get(node.attributes.name);
    if (parameter === undefined) continue;
    const shape = shapeOf({ node, index: 0 });
    const { rows, columns } = parameter;
    if (sameShape(shape, [rows, columns]) || sameShape(shape, [columns, rows])) continue;
    throw new ShapeError(
      "wrong_quantized_shape",
      `quantized parameter "${node.attributes.name}" does not fit`,
      {
        expected: formatShape(shape),
        received: formatShape([rows, columns]),
      },
    );
  }
}

/** The graph without the float leaves, and the casts and transposes of them that nothing reads any more. */
function withoutLeaves(graph: Graph, quantized: QuantizedParameters): Graph {
  const isFloatLeaf = (node: AnyNode): boolean =>
    node.op === "leaf" && quantized.has(node.attributes.name) && node.attributes.dtype !== "u8";
  const derived = new Set<Node>();
  for (const node of graph.nodes) {
    if (isFloatLeaf(node)) derived.add(node);
    else if (node.inputs.some((input) => derived.has(input.node))) {
      if (node.op === "cast" || node.op === "transpose") derived.add(node);
      else throw misused(node, derived, quantized);
    }
  }
  for (const { value } of graph.outputs)
    if (derived.has(value.node)) throw misused(value.node, derived, quantized);
  return { ...graph, nodes: graph.nodes.filter((node) => !derived.has(node)) };
}

function misused(node: Node, derived: ReadonlySet<Node>, quantized: QuantizedParameters): InternalError {
  const operand = node.inputs.find((input) => derived.has(input.node))?.node ?? node;
  const name = [...quantized.keys()].find((key) => {
    for (let at: Node | undefined = operand; at !== undefined; at = at.inputs[0]?.node) {
      if (at.op === "leaf" && (at as Node<"leaf">).attributes.name === key) return true;
    }
    return false;
  });
  return new InternalError(`${node.op} cannot read quantized parameter "${name ?? ""}"`, {
    where: node.scope.name,
    expected: "products with it from the right, and look-ups of its rows",
  });
}
