import { isFloat } from "../../base/dtype.ts";
import { InternalError, RunError, ShapeError } from "../../base/errors.ts";
import { elementCount, resolveShape, type SymbolValues } from "../../base/shape.ts";
import { type AnyNode, type Graph, typeOf, type Value } from "../../graph/graph.ts";
import { applyRule, type ReferenceTensor } from "../../graph/rules/reference.ts";

/** Options of an evaluation. */
export interface EvaluateOptions {
  /** Stops at the first result that is not finite. */
  readonly checkFinite?: boolean;
}

/** Values by the node that made them, one tensor an output. */
export type NodeValues = ReadonlyMap<object, readonly ReferenceTensor[]>;

/**
 * Computes every node of a graph in float64, in order.
 * @param leaves values of the leaves by name, with the shapes that they have under `symbols`.
 * @throws ShapeError where a leaf has no value, or not as many elements as its shape; RunError where
 * `checkFinite` finds a result that is not finite.
 */
export function evaluateNodes(
  graph: Graph,
  leaves: ReadonlyMap<string, ReferenceTensor>,
  symbols: SymbolValues = {},
  options: EvaluateOptions = {},
): NodeValues {
  const values = new Map<object, readonly ReferenceTensor[]>();
  for (const node of graph.nodes) values.set(node, evaluateOne(node, values, leaves, symbols, options));
  return values;
}

/** Computes the results of one node whose operands are computed. */
export function evaluateOne(
  node: AnyNode,
  values: NodeValues,
  leaves: ReadonlyMap<string, ReferenceTensor>,
  symbols: SymbolValues,
  options: EvaluateOptions,
): readonly ReferenceTensor[] {
  if (node.op === "leaf") {
    return [leafValue(node.attributes.name, resolveShape(node.attributes.shape, symbols), leaves)];
  }
  const inputs = node.inputs.map((input) => tensorOf(values, input));
  const shapes = node.outputs.map((output) => resolveShape(output.shape, symbols));
  const results = applyRule(node, inputs, shapes);
  return acceptResults(
    node,
    results.map((result, index) => ({ shape: shapes[index]!, values: result })),
    symbols,
    options,
  );
}

/** Holds computed results to the shapes of the node, and to finite numbers where asked. */
export function acceptResults(
  node: AnyNode,
  results: readonly ReferenceTensor[],
  symbols: SymbolValues,
  options: EvaluateOptions,
): readonly ReferenceTensor[] {
  const tensors = node.outputs.map((output, index) => {
    const shape = resolveShape(output.shape, symbols);
    const values = results[index]?.values;
    if (values === undefined || values.length !== elementCount(shape)) {
      throw new InternalError(`the reference of ${node.op} gives ${values?.length} values for [${shape}]`);
    }
    return { shape, values };
  });
  if (options.checkFinite === true) checkFinite(node, tensors);
  return tensors;
}

/** The value of a node's result. */
export function tensorOf(values: NodeValues, value: Value): ReferenceTensor {
  const tensor = values.get(value.node)?.[value.index];
  if (tensor === undefined) throw new InternalError(`${value.node.op} is used before it is computed`);
  return tensor;
}

/**
 * The values of a graph's outputs, by name, computed in float64. Targets are not written: an output with one
 * has the value that would be stored or added there.
 */
export function evaluate(
  graph: Graph,
  leaves: ReadonlyMap<string, ReferenceTensor>,
  symbols: SymbolValues = {},
): Map<string, ReferenceTensor> {
  const values = evaluateNodes(graph, leaves, symbols);
  return new Map(graph.outputs.map((output) => [output.name, tensorOf(values, output.value)]));
}

function leafValue(
  name: string,
  shape: readonly number[],
  leaves: ReadonlyMap<string, ReferenceTensor>,
): ReferenceTensor {
  const found = leaves.get(name);
  if (found === undefined) {
    throw new ShapeError("binding_missing", `leaf "${name}" has no value`, {
      expected: `values of shape [${shape.join(", ")}]`,
    });
  }
  if (found.values.length !== elementCount(shape)) {
    throw new ShapeError("wrong_size", `the values of leaf "${name}" do not fill its shape`, {
      expected: `${elementCount(shape)} values for [${shape.join(", ")}]`,
      received: `${found.values.length} values`,
    });
  }
  return { shape, values: found.values };
}

function checkFinite(node: AnyNode, tensors: readonly ReferenceTensor[]): void {
  tensors.forEach(({ values }, index) => {
    if (!isFloat(typeOf({ node, index }).dtype)) return;
    const position = values.findIndex((value) => !Number.isFinite(value));
    if (position < 0) return;
    throw new RunError("not_finite", `${node.op} gave a result that is not finite`, {
      ...(node.scope.name === "" ? {} : { where: node.scope.name }),
      received: `${values[position]} at element ${position}`,
    });
  });
}
