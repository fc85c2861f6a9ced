import { roundTo } from "../../../base/dtype.ts";
import {
  add,
  binary,
  cast,
  divide,
  elementwise,
  multiply,
  scalar,
  subtract,
  sumTo,
  unary,
} from "../../build.ts";
import type { ElementwiseOperation } from "../../expression.ts";
import { dtypeOf, type Node, shapeOf, type Value } from "../../graph.ts";
import type { GradientRule } from "../gradient.ts";

/** d(loss)/d(operands) from d(loss)/d(result), before the sums that undo broadcasting. */
type Derivative = (
  gradient: Value,
  operands: readonly Value[],
  result: Value,
) => readonly (Value | undefined)[];

const none: Derivative = (_gradient, operands) => operands.map(() => undefined);
const inverseSqrt2 = Math.SQRT1_2;
const inverseSqrt2Pi = 1 / Math.sqrt(2 * Math.PI);

/** Derivative of the normal distribution's x * Phi(x). */
function geluDerivative(x: Value): Value {
  const cumulative = multiply(add(unary("erf", multiply(x, inverseSqrt2)), 1), 0.5);
  const density = multiply(unary("exp", multiply(multiply(x, x), -0.5)), inverseSqrt2Pi);
  return add(cumulative, multiply(x, density));
}

/** Derivative of x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3). */
function geluTanhDerivative(x: Value): Value {
  const c = Math.sqrt(2 / Math.PI);
  const square = multiply(x, x);
  const t = unary("tanh", multiply(multiply(x, add(multiply(square, 0.044715), 1)), c));
  const slope = multiply(add(multiply(square, 3 * 0.044715), 1), c);
  const curved = multiply(multiply(multiply(x, 0.5), subtract(scalar(1), multiply(t, t))), slope);
  return add(multiply(add(t, 1), 0.5), curved);
}

const derivatives: { readonly [Operation in ElementwiseOperation]: Derivative } = {
  negate: (g) => [unary("negate", g)],
  absolute: (g, [x]) => [multiply(g, unary("sign", x!))],
  exp: (g, _, y) => [multiply(g, y)],
  log: (g, [x]) => [divide(g, x!)],
  sqrt: (g, _, y) => [divide(multiply(g, 0.5), y)],
  rsqrt: (g, [x], y) => [divide(multiply(multiply(g, -0.5), y), x!)],
  reciprocal: (g, _, y) => [unary("negate", multiply(g, multiply(y, y)))],
  tanh: (g, _, y) => [multiply(g, subtract(scalar(1), multiply(y, y)))],
  sigmoid: (g, _, y) => [multiply(g, multiply(y, subtract(scalar(1), y)))],
  relu: (g, [x]) => [multiply(g, binary("less", scalar(0), x!))],
  silu: (g, [x]) => {
    const s = unary("sigmoid", x!);
    return [multiply(g, multiply(s, add(multiply(x!, subtract(scalar(1), s)), 1)))];
  },
  gelu: (g, [x]) => [multiply(g, geluDerivative(x!))],
  gelu_tanh: (g, [x]) => [multiply(g, geluTanhDerivative(x!))],
  erf: (g, [x]) => [
    multiply(g, multiply(unary("exp", unary("negate", multiply(x!, x!))), 2 / Math.sqrt(Math.PI))),
  ],
  sin: (g, [x]) => [multiply(g, unary("cos", x!))],
  cos: (g, [x]) => [unary("negate", multiply(g, unary("sin", x!)))],
  sign: none,
  floor: none,
  is_finite: none,
  add: (g) => [g, g],
  subtract: (g) => [g, unary("negate", g)],
  multiply: (g, [a, b]) => [multiply(g, b!), multiply(g, a!)],
  divide: (g, [, b], y) => [divide(g, b!), unary("negate", divide(multiply(g, y), b!))],
  maximum: (g, [a, b]) => {
    // Ties share the gradient equally, as PyTorch does.
    const tie = multiply(binary("equal", a!, b!), 0.5);
    return [multiply(g, add(binary("less", b!, a!), tie)), multiply(g, add(binary("less", a!, b!), tie))];
  },
  minimum: (g, [a, b]) => {
    const tie = multiply(binary("equal", a!, b!), 0.5);
    return [multiply(g, add(binary("less", a!, b!), tie)), multiply(g, add(binary("less", b!, a!), tie))];
  },
  power: (g, [a, b], y) => {
    // Both are 0 where their factor b or y = 0^b is, whatever the infinity beside it.
    const exponent = elementwise("select", b!, subtract(b!, 1), scalar(1));
    const base = elementwise("select", a!, a!, scalar(1));
    return [
      multiply(g, multiply(b!, binary("power", a!, exponent))),
      multiply(g, multiply(y, unary("log", base))),
    ];
  },
  less: none,
  less_equal: none,
  equal: none,
  select: (g, [condition]) => [
    undefined,
    elementwise("select", condition!, g, scalar(0)),
    elementwise("select", condition!, scalar(0), g),
  ],
};

/** Gradients of the elementwise ops. */
export const elementwiseOpGradients: {
  readonly elementwise: GradientRule<"elementwise">;
  readonly cast: GradientRule<"cast">;
} = {
  elementwise: (node, [gradient]) => {
    if (gradient === undefined) return [];
    const result: Value = { node: node as Node, index: 0 };
    const raw = derivatives[node.attributes.operation](gradient, node.inputs, result);
    return raw.map((value, index) => {
      const input = node.inputs[index]!;
      const dtype = dtypeOf(input);
      // The derivative of a constant such as 0.5 is never used: do not record it.
      if (value === undefined || input.node.op === "fill" || roundTo(dtype, 0.5) !== 0.5) return undefined;
      return cast(sumTo(value, shapeOf(input)), dtype);
    });
  },
  cast: (node, [gradient]) => {
    const dtype = dtypeOf(node.inputs[0]!);
    return [gradient === undefined || roundTo(dtype, 0.5) !== 0.5 ? undefined : cast(gradient, dtype)];
  },
};
