import { roundTo } from "../../../base/dtype.ts";
import type { ElementwiseOperation, Expression, RoundingOperation } from "../../expression.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { broadcastTo, truncateToIntegers } from "./common.ts";
import { elementwiseFunctions } from "./mathematics.ts";

function applyOperation(
  operation: ElementwiseOperation | RoundingOperation,
  operands: readonly Float64Array[],
): Float64Array {
  if (operation === "round_bf16") return operands[0]!.map((value) => roundTo("bf16", value));
  if (operation === "round_f16") return operands[0]!.map((value) => roundTo("f16", value));
  const compute = elementwiseFunctions[operation];
  const a = operands[0]!;
  const b = operands[1] ?? a;
  const c = operands[2] ?? a;
  const result = new Float64Array(a.length);
  for (let i = 0; i < result.length; i++) result[i] = compute(a[i]!, b[i]!, c[i]!);
  return result;
}

function evaluateExpression(
  expression: Expression,
  inputs: readonly ReferenceTensor[],
  shape: readonly number[],
): Float64Array {
  const values = inputs.map((input) => broadcastTo(input, shape));
  const elements = shape.reduce((product, size) => product * size, 1);
  for (const instruction of expression.instructions) {
    if (instruction.operation === "constant") {
      values.push(new Float64Array(elements).fill(instruction.value));
    } else {
      const operands = instruction.operands.map((operand) => values[operand]!);
      values.push(applyOperation(instruction.operation, operands));
    }
  }
  return values.at(-1)!;
}

/** Meaning of the elementwise ops. */
export const elementwiseReferences: {
  readonly [Op in "elementwise" | "cast" | "map"]: ReferenceRule<Op>;
} = {
  elementwise: (inputs, { operation }, [shape]) => {
    const operands = inputs.map((input) => broadcastTo(input, shape!));
    return [applyOperation(operation, operands)];
  },
  cast: ([x], { dtype }) => [truncateToIntegers(x!.values.slice(), dtype)],
  map: (inputs, { expression, dtype }, [shape]) => [
    truncateToIntegers(evaluateExpression(expression, inputs, shape!).slice(), dtype),
  ],
};
