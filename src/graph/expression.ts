/**
 * Elementwise expressions: the straight-line programs that a `map` node holds. Value `i < inputs` is input
 * i; instruction j makes value `inputs + j`; the last instruction is the result (input 0 where there is none).
 */

/** Elementwise operations by number of operands. A position in `elementwiseOpcodes` is the native opcode. */
export const unaryOperations = [
  "negate",
  "absolute",
  "exp",
  "log",
  "sqrt",
  "rsqrt",
  "reciprocal",
  "tanh",
  "sigmoid",
  "relu",
  "silu",
  "gelu",
  "gelu_tanh",
  "erf",
  "sin",
  "cos",
  "sign",
  "floor",
  "is_finite",
] as const;

export const binaryOperations = [
  "add",
  "subtract",
  "multiply",
  "divide",
  "maximum",
  "minimum",
  "power",
  "less",
  "less_equal",
  "equal",
] as const;

/** `select(condition, a, b)` is a where the condition is not zero, b elsewhere. */
export const ternaryOperations = ["select"] as const;

/**
 * Rounding to a 16-bit float and back. The fusion pass puts one where a value would have been stored in that
 * dtype, so that fusing never changes a bit of the result.
 */
export const roundingOperations = ["round_bf16", "round_f16"] as const;

export type RoundingOperation = (typeof roundingOperations)[number];
export type UnaryOperation = (typeof unaryOperations)[number];
export type BinaryOperation = (typeof binaryOperations)[number];
export type TernaryOperation = (typeof ternaryOperations)[number];
export type ElementwiseOperation = UnaryOperation | BinaryOperation | TernaryOperation;

/** Native opcodes: `constant` yields the immediate; the rest are the operations in order. */
export const elementwiseOpcodes = [
  "constant",
  ...unaryOperations,
  ...binaryOperations,
  ...ternaryOperations,
  ...roundingOperations,
] as const;

/** One instruction: an operation on earlier values, or a constant. */
export type Instruction =
  | { readonly operation: "constant"; readonly value: number }
  | { readonly operation: ElementwiseOperation | RoundingOperation; readonly operands: readonly number[] };

/** A whole expression over `inputs` operands. */
export interface Expression {
  readonly inputs: number;
  readonly instructions: readonly Instruction[];
}

/** How many operands an operation takes. */
export function arity(operation: ElementwiseOperation | RoundingOperation): 1 | 2 | 3 {
  if ((roundingOperations as readonly string[]).includes(operation)) return 1;
  if ((unaryOperations as readonly string[]).includes(operation)) return 1;
  if ((binaryOperations as readonly string[]).includes(operation)) return 2;
  return 3;
}

/** The expression as text: `multiply(x0, sigmoid(x1))`. */
export function formatExpression(expression: Expression): string {
  const texts: string[] = Array.from({ length: expression.inputs }, (_, index) => `x${index}`);
  const uses = new Map<number, number>();
  for (const instruction of expression.instructions) {
    if (instruction.operation === "constant") continue;
    for (const operand of instruction.operands) uses.set(operand, (uses.get(operand) ?? 0) + 1);
  }
  const prefix: string[] = [];
  expression.instructions.forEach((instruction, index) => {
    const position = expression.inputs + index;
    if (instruction.operation === "constant") {
      texts[position] = String(instruction.value);
      return;
    }
    const text = `${instruction.operation}(${instruction.operands.map((operand) => texts[operand]).join(", ")})`;
    if ((uses.get(position) ?? 0) > 1) {
      prefix.push(`t${index} = ${text}`);
      texts[position] = `t${index}`;
    } else {
      texts[position] = text;
    }
  });
  return [...prefix, texts.at(-1) ?? ""].join("; ");
}
