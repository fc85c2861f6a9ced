import { type DType, encode, roundTo } from "../../base/dtype.ts";
import { elementCount, type Shape, sameShape } from "../../base/shape.ts";
import { broadcast, cast, fill, reshape } from "../../graph/build.ts";
import type { ElementwiseOperation } from "../../graph/expression.ts";
import {
  type AnyNode,
  apply,
  dtypeOf,
  type Graph,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import type { OpName } from "../../graph/ops.ts";
import { evaluateNode } from "../../graph/rules/reference.ts";
import { rewrite } from "./rewrite.ts";

/** Constants above this many elements are left to run time: folding them would bloat the program. */
const foldLimit = 4096;

function fillValue(value: Value): number | undefined {
  return value.node.op === "fill" ? (value.node as Node<"fill">).attributes.value : undefined;
}

function isConstant(value: Value): boolean {
  return value.node.op === "fill" || value.node.op === "constant";
}

function fixedShape(shape: Shape): number[] | undefined {
  return shape.every((dimension) => typeof dimension === "number") ? [...(shape as number[])] : undefined;
}

/** x + -0, x - 0, x * 1, x / 1 and x to the power of 1: those neutral operands that change no bit of any x. */
function identity(operation: ElementwiseOperation, inputs: readonly Value[]): Value | undefined {
  const [a, b] = inputs as [Value, Value | undefined];
  if (b === undefined) return undefined;
  const left = fillValue(a);
  const right = fillValue(b);
  switch (operation) {
    case "add":
      // Not + 0: -0 + 0 is 0.
      return Object.is(right, -0) ? a : Object.is(left, -0) ? b : undefined;
    case "subtract":
      return Object.is(right, 0) ? a : undefined;
    case "multiply":
      return right === 1 ? a : left === 1 ? b : undefined;
    case "divide":
    case "power":
      return right === 1 ? a : undefined;
    default:
      return undefined;
  }
}

/** Ops that are computed here where all operands are constant. */
const foldedOps: ReadonlySet<OpName> = new Set<OpName>([
  "elementwise",
  "cast",
  "transpose",
  "slice",
  "pad_into",
  "concatenate",
  "reduce",
]);

/** Computes a node whose operands are all constants, with the reference semantics. */
function fold(node: AnyNode, inputs: readonly Value[]): Value | undefined {
  const type = node.outputs[0]!;
  const shape = fixedShape(type.shape);
  if (node.outputs.length !== 1 || shape === undefined || elementCount(shape) > foldLimit) return undefined;
  if (inputs.length === 0 || !inputs.every(isConstant)) return undefined;
  if (
    inputs.some(
      (input) =>
        fixedShape(shapeOf(input)) === undefined || elementCount(shapeOf(input) as number[]) > foldLimit,
    )
  ) {
    return undefined;
  }
  const [result] = evaluateNode(node, inputs);
  const values = result!.map((value) => roundTo(type.dtype, value));
  const first = values[0] ?? 0;
  if (values.every((value) => Object.is(value, first))) return fill(first, shape, type.dtype);
  return apply("constant", [], {
    data: encode(type.dtype, values),
    shape,
    dtype: type.dtype,
  });
}

/**
 * Folds constants and removes what does nothing: neutral operands, casts behind wider casts, reshapes of
 * reshapes, transposes that a matrix product can absorb. What is not folded keeps every bit, signs of zeros
 * and NaN included.
 */
export function simplify(graph: Graph): Graph {
  return rewrite(graph, (node, inputs) => {
    const folded = foldedOps.has(node.op) ? fold(node, inputs) : undefined;
    if (folded !== undefined) return [folded];
    const type = node.outputs[0]!;
    switch (node.op) {
      case "elementwise": {
        const same = identity(node.attributes.operation, inputs);
        if (same === undefined || !sameShape(shapeOf(same), type.shape)) return undefined;
        return dtypeOf(same) === type.dtype ? [same] : undefined;
      }
      case "cast":
        return simplifyCast(inputs[0]!, node.attributes.dtype);
      case "reshape": {
        const input = inputs[0]!;
        const value = fillValue(input);
        if (value !== undefined) return [fill(value, type.shape, type.dtype)];
        const source = input.node.op === "reshape" ? input.node.inputs[0]! : input;
        return source === input && !sameShape(shapeOf(source), type.shape)
          ? undefined
          : [reshape(source, type.shape)];
      }
      case "broadcast": {
        const value = fillValue(inputs[0]!);
        if (value !== undefined) return [fill(value, type.shape, type.dtype)];
        return sameShape(shapeOf(inputs[0]!), type.shape) ? [broadcast(inputs[0]!, type.shape)] : undefined;
      }
      case "matmul":
        return absorbTransposes(node, inputs);
      default:
        return undefined;
    }
  });
}

function simplifyCast(input: Value, dtype: DType): Value[] | undefined {
  if (dtypeOf(input) === dtype) return [input];
  const value = fillValue(input);
  if (value !== undefined) return [fill(roundTo(dtype, value), shapeOf(input), dtype)];
  if (input.node.op !== "cast") return undefined;
  // A cast to a dtype that holds every value of the one before changes nothing on the way.
  const source = input.node.inputs[0]!;
  return holdsAll(dtypeOf(input), dtypeOf(source)) ? [cast(source, dtype)] : undefined;
}

/** The dtypes whose every value each dtype can hold. */
const contained: Readonly<Record<DType, readonly DType[]>> = {
  f64: ["f32", "bf16", "f16", "i32", "u8", "i8"],
  f32: ["bf16", "f16", "u8", "i8"],
  bf16: ["u8", "i8"],
  f16: ["u8", "i8"],
  i32: ["u8", "i8"],
  u8: [],
  i8: [],
};

function holdsAll(wide: DType, narrow: DType): boolean {
  return wide === narrow || contained[wide].includes(narrow);
}

/** Whether the node swaps the last two axes and nothing else. */
function swapsLast(node: Node): node is Node<"transpose"> {
  if (node.op !== "transpose") return false;
  const { permutation } = (node as Node<"transpose">).attributes;
  const rank = permutation.length;
  return permutation.every((axis, position) =>
    position < rank - 2 ? axis === position : axis === (position === rank - 1 ? rank - 2 : rank - 1),
  );
}

function absorbTransposes(node: Node<"matmul">, inputs: readonly Value[]): Value[] | undefined {
  const [a, b, ...extra] = inputs as [Value, Value, ...Value[]];
  const flipA = swapsLast(a.node);
  const flipB = swapsLast(b.node);
  if (!flipA && !flipB) return undefined;
  const attributes = {
    ...node.attributes,
    transposeA: node.attributes.transposeA !== flipA,
    transposeB: node.attributes.transposeB !== flipB,
  };
  const operands = [flipA ? a.node.inputs[0]! : a, flipB ? b.node.inputs[0]! : b, ...extra];
  return [apply("matmul", operands, attributes, node)];
}
