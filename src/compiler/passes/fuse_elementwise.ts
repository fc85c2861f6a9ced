import { type DType, isFloat } from "../../base/dtype.ts";
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
import { rewrite, usesOf } from "./rewrite.ts";

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
    return this.#remember(JSON.stringify(instruction), () => this.instructions.push(instruction) - 1);
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

/**
 * Gathers elementwise nodes into `map` nodes. A node is inlined into its readers where all of them are
 * elementwise and of its shape: its result is then never stored, at the price of computing it once a reader.
 * Rounding instructions keep every bit as it would be without fusion.
 */
export function fuseElementwise(graph: Graph): Graph {
  const uses = usesOf(graph);
  const inlinable = (value: Value, reader: AnyNode): boolean => {
    const node = value.node;
    if (!isElementwise(node) || !isFloat(dtypeOf(value))) return false;
    // A recomputed copy must not reach behind the checkpoint that it starts from.
    if (reader.recomputed !== undefined && node.recomputed === undefined) return false;
    if (uses.isOutput(value) || !sameShape(shapeOf(value), reader.outputs[0]!.shape)) return false;
    const readers = uses.readers.get(node) ?? [];
    return readers.every(
      (other) =>
        isElementwise(other) &&
        isFloat(other.outputs[0]!.dtype) &&
        sameShape(other.outputs[0]!.shape, shapeOf(value)),
    );
  };
  return rewrite(graph, (node, inputs) => {
    if (!isElementwise(node)) return undefined;
    for (const deep of [true, false]) {
      const builder = new Builder();
      const positions = inputs.map((input, index) => {
        if (input.node.op === "fill" && shapeOf(input).length === 0) {
          return builder.instruction({
            operation: "constant",
            value: (input.node as Node<"fill">).attributes.value,
          });
        }
        if (!deep || !isElementwise(input.node) || !inlinable(node.inputs[index]!, node))
          return builder.input(input);
        const inner = builder.inline(
          expressionOf(input.node),
          input.node.inputs.map((value) => builder.input(value)),
        );
        const operation = rounding(dtypeOf(input));
        return operation === undefined ? inner : builder.instruction({ operation, operands: [inner] });
      });
      const result = builder.inline(expressionOf(node), positions);
      const expression = builder.finish(result);
      const fits =
        expression.instructions.length <= maximumInstructions && builder.inputs.length <= maximumInputs;
      if (deep && !fits) continue;
      // With nothing but constants there is no operand to take the shape from: leave it as it is.
      if (builder.inputs.length === 0) return undefined;
      const fused = apply("map", builder.inputs, { expression, dtype: node.outputs[0]!.dtype }, node);
      return sameShape(shapeOf(fused), node.outputs[0]!.shape) ? [fused] : undefined;
    }
    return undefined;
  });
}
