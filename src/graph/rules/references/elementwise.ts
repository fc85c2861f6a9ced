import { roundTo } from "../../../base/dtype.ts";
import { elementCount } from "../../../base/shape.ts";
import type { ElementwiseOperation, Expression } from "../../expression.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { broadcastTo, truncateToIntegers } from "./common.ts";
import { elementwiseFunctions } from "./mathematics.ts";

function applyOperation(operation: ElementwiseOperation, operands: readonly Float64Array[]): Float64Array {
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
  for (const instruction of expression.instructions) {
    if (instruction.operation === "constant") {
      values.push(new Float64Array(elementCount(shape)).fill(instruction.value));
      continue;
    }
    const operands = instruction.operands.map((operand) => values[operand]!);
    if (instruction.operation === "round_bf16" || instruction.operation === "round_f16") {
      const dtype = instruction.operation === "round_bf16" ? "bf16" : "f16";
      values.push(operands[0]!.map((value) => roundTo(dtype, value)));
    } else {
      values.push(applyOperation(instruction.operation, operands));
    }
  }
  return expression.instructions.length === 0 ? values[0]! : values.at(-1)!;
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
