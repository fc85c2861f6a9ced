import { type DType, isFloat, roundTo } from "../../base/dtype.ts";
import { sameShape } from "../../base/shape.ts";
import type { Expression, Instruction } from "../../graph/expression.ts";
import {
  type AnyNode,
  apply,
  dtypeOf,
  type Graph,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { rewrite, type Uses, usesOf } from "./rewrite.ts";

/** Longer expressions, or ones of more operands, gain nothing: the work then outweighs the memory traffic. */
const maximumInstructions = 32;
const maximumInputs = 8;

/** Builds one expression out of a tree of elementwise nodes. */
class Builder {
  readonly inputs: Value[] = [];
  readonly instructions: Instruction[] = [];
  /** Operands by position: inputs count from -1 downwards until their number is known. */
  readonly #known = new Map<string, number>();

  input(value: Value): number {
    const key = `i${value.node.id}.${value.index}`;
    return this.#remember(key, () => {
      this.inputs.push(value);
      return -this.inputs.length;
    });
  }

  instruction(instruction: Instruction): number {
    const key =
      instruction.operation === "constant"
        ? `constant ${Object.is(instruction.value, -0) ? "-0" : instruction.value}`
        : `${instruction.operation} ${instruction.operands.join()}`;
    return this.#remember(key, () => this.instructions.push(instruction) - 1);
  }

  /** Inlines an expression whose operands stand at `positions`; returns where its result stands. */
  inline(expression: Expression, positions: readonly number[]): number {
    const placed = [...positions];
    for (const instruction of expression.instructions) {
      placed.push(
        instruction.operation === "constant"
          ? this.instruction(instruction)
          : this.instruction({
              operation: instruction.operation,
              operands: instruction.operands.map((operand) => placed[operand]!),
            }),
      );
    }
    return placed[expression.instructions.length === 0 ? 0 : placed.length - 1]!;
  }

  finish(result: number): Expression {
    const count = this.inputs.length;
    const position = (operand: number): number => (operand < 0 ? -operand - 1 : operand + count);
    const instructions = this.instructions.map((instruction) =>
      instruction.operation === "constant"
        ? instruction
        : { operation: instruction.operation, operands: instruction.operands.map(position) },
    );
    if (result >= 0 && result !== instructions.length - 1) {
      // The result was shared with an earlier instruction: drop what stands behind it.
      return { inputs: count, instructions: instructions.slice(0, result + 1) };
    }
    return { inputs: count, instructions };
  }

  #remember(key: string, make: () => number): number {
    const present = this.#known.get(key);
    if (present !== undefined) return present;
    const made = make();
    this.#known.set(key, made);
    return made;
  }
}

type ElementwiseNode = Node<"elementwise"> | Node<"cast"> | Node<"map">;

function isElementwise(node: Node): node is ElementwiseNode {
  return node.op === "elementwise" || node.op === "cast" || node.op === "map";
}

function expressionOf(node: ElementwiseNode): Expression {
  switch (node.op) {
    case "map":
      return node.attributes.expression;
    case "cast":
      return { inputs: 1, instructions: [] };
    case "elementwise": {
      const { operation } = node.attributes;
      return {
        inputs: node.inputs.length,
        instructions: [{ operation, operands: node.inputs.map((_, index) => index) }],
      };
    }
  }
}

/** What storing a value of `dtype` would do to it, as an instruction; undefined where it does nothing. */
function rounding(dtype: DType): "round_bf16" | "round_f16" | undefined {
  return dtype === "bf16" ? "round_bf16" : dtype === "f16" ? "round_f16" : undefined;
}

/** Whether a value may be computed inside its readers instead of being stored. */
class Inlining {
  readonly #uses: Uses;
  readonly #atHand = new Map<Node, boolean>();

  constructor(graph: Graph) {
    this.#uses = usesOf(graph);
  }

  allows(value: Value, reader: AnyNode): boolean {
    const { node } = value;
    if (!isElementwise(node) || !isFloat(dtypeOf(value)) || this.#uses.isOutput(value)) return false;
    // A recomputed copy must not reach behind the checkpoint that it starts from.
    if (reader.recomputed !== undefined && node.recomputed === undefined) return false;
    // Nor may a gradient keep two operands of the forward pass alive instead of one result.
    const crosses = reader.scope.phase === "backward" && node.scope.phase === "forward";
    if (crosses && !node.inputs.every((input) => this.#isAtHand(input.node))) return false;
    const readers = this.#uses.readers.get(node) ?? [];
    return [reader, ...readers].every(
      (other) =>
        isElementwise(other) &&
        isFloat(other.outputs[0]!.dtype) &&
        sameShape(other.outputs[0]!.shape, shapeOf(value)),
    );
  }

  /** Whether the backward pass has a forward result at hand anyway. */
  #isAtHand(node: Node): boolean {
    const known = this.#atHand.get(node);
    if (known !== undefined) return known;
    const readers = this.#uses.readers.get(node) ?? [];
    const found =
      node.op === "leaf" ||
      node.op === "constant" ||
      node.op === "fill" ||
      readers.some((reader) => reader.scope.phase === "backward") ||
      ((isElementwise(node) || node.op === "reshape" || node.op === "broadcast") &&
        node.inputs.every((input) => this.#isAtHand(input.node)));
    this.#atHand.set(node, found);
    return found;
  }
}

/** How an operand enters an expression. */
interface Attempt {
  /** Inline the expressions of operands. */
  readonly deep: boolean;
  /** Let the operands of broadcasts and fills of any shape stand for them: the other operands give the shape. */
  readonly stretch: boolean;
}

const attempts: readonly Attempt[] = [
  { deep: true, stretch: true },
  { deep: true, stretch: false },
  { deep: false, stretch: true },
  { deep: false, stretch: false },
];

/**
 * Gathers elementwise nodes into `map` nodes, with the broadcasts and the constants that they read. A node is
 * inlined into its readers where all of them are elementwise and of its shape: its result is then never
 * stored, at the price of computing it once a reader. Rounding instructions keep every bit as it would be
 * without fusion.
 */
export function fuseElementwise(graph: Graph): Graph {
  const inlining = new Inlining(graph);
  return rewrite(graph, (node, inputs) => {
    if (!isElementwise(node)) return undefined;
    const inlined = inputs.map((_, index) => inlining.allows(node.inputs[index]!, node));
    for (const attempt of attempts) {
      const fused = fuse(node, inputs, inlined, attempt);
      if (fused !== undefined) return [fused];
    }
    return undefined;
  });
}

function fuse(
  node: ElementwiseNode,
  inputs: readonly Value[],
  inlined: readonly boolean[],
  { deep, stretch }: Attempt,
): Value | undefined {
  const builder = new Builder();
  const positions = inputs.map((input, index) => {
    const operand = input.node as AnyNode;
    if (operand.op === "fill" && (stretch || shapeOf(input).length === 0)) {
      const value = roundTo(dtypeOf(input), operand.attributes.value);
      return builder.instruction({ operation: "constant", value });
    }
    if (stretch && operand.op === "broadcast") return builder.input(operand.inputs[0]!);
    if (!deep || !isElementwise(operand) || inlined[index] !== true) return builder.input(input);
    const inner = builder.inline(
      expressionOf(operand),
      operand.inputs.map((value) => builder.input(value)),
    );
    const operation = rounding(dtypeOf(input));
    return operation === undefined ? inner : builder.instruction({ operation, operands: [inner] });
  });
  const result = builder.inline(expressionOf(node), positions);
  const expression = builder.finish(result);
  const { dtype, shape } = node.outputs[0]!;
  // With nothing but constants there is no operand to take the shape from.
  if (builder.inputs.length === 0) return undefined;
  if (deep && (expression.instructions.length > maximumInstructions || builder.inputs.length > maximumInputs))
    return undefined;
  const fused = apply("map", builder.inputs, { expression, dtype }, node);
  return sameShape(shapeOf(fused), shape) ? fused : undefined;
}
