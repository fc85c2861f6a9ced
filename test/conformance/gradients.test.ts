import { expect, test } from "vitest";
import { isFloat } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount, symbolic } from "../../src/base/shape.ts";
import {
  add,
  binary,
  cast,
  constant,
  divide,
  leaf,
  multiply,
  reduce,
  reshape,
  subtract,
  unary,
} from "../../src/graph/build.ts";
import { gradients } from "../../src/graph/gradient.ts";
import { apply, buildGraph, dtypeOf, shapeOf, type Value } from "../../src/graph/graph.ts";
import { type OpName, opNames } from "../../src/graph/ops.ts";
import { gradientRules } from "../../src/graph/rules/gradient.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { evaluate } from "../../src/runtime/reference/evaluate.ts";
import { type OpSamples, record, referenceLeaves, type Sample } from "./samples/sample.ts";
import { samples } from "./samples.ts";

/**
 * Every derivative against central differences in float64: the slope of the loss between x - h and x + h is
 * its derivative at x up to terms of order h^2.
 */
const step = 1e-5;
const bar = 1e-6;
/** Elements of each operand that are moved: the first, the last, and some between. */
const moved = 14;

type Leaf = Value<"leaf">;
type Leaves = ReadonlyMap<string, ReferenceTensor>;

/** Results with a derivative; the others are statistics for the op's own gradient. */
const differentiable: Partial<Record<OpName, readonly number[]>> = {
  attention: [0],
  rms_norm: [0],
  layer_norm: [0],
};

function sum(value: Value): Value {
  const axes = shapeOf(value).map((_, axis) => axis);
  return reshape(reduce("sum", value, axes), []);
}

/** A scalar in which every element of the results counts differently, and the leaves of its weights. */
function weigh(results: readonly Value[], prefix: string, values: Map<string, ReferenceTensor>) {
  const weights: Leaf[] = [];
  const terms = results.map((result, index) => {
    const name = `${prefix}${index}`;
    const shape = shapeOf(result) as number[];
    const source = new PhiloxStream(31, index);
    values.set(name, {
      shape,
      values: Float64Array.from({ length: elementCount(shape) }, () => source.nextNormal()),
    });
    const weight = leaf(name, "input", shape, "f32");
    weights.push(weight);
    return sum(multiply(cast(result, "f32"), weight));
  });
  return { loss: terms.reduce((a, b) => add(a, b)), weights };
}

function checkGradients(loss: Value, leaves: readonly Leaf[], values: Leaves): void {
  const lossGraph = buildGraph("loss", [{ name: "loss", value: loss }]);
  const lossAt = (at: Leaves): number => evaluate(lossGraph, at).get("loss")!.values[0]!;
  const outputs = gradients(loss, leaves).map((value, index) => ({ name: String(index), value }));
  const computed = evaluate(buildGraph("gradient", outputs), values);
  leaves.forEach((variable, index) => {
    const { name } = variable.node.attributes;
    const { shape, values: point } = values.get(name)!;
    const gradient = computed.get(String(index))!;
    expect(gradient.shape, `the gradient of ${name}`).toEqual(shape);
    const largest = gradient.values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const every = Math.max(1, Math.floor(point.length / moved));
    for (let element = 0; element < point.length; element += every) {
      const shifted = (by: number): number => {
        const copy = point.slice();
        copy[element]! += by;
        return lossAt(new Map(values).set(name, { shape, values: copy }));
      };
      const slope = (shifted(step) - shifted(-step)) / (2 * step);
      const error = Math.abs(slope - gradient.values[element]!) / largest;
      expect(
        error,
        `d loss / d ${name}[${element}]: ${gradient.values[element]} but slope ${slope}`,
      ).toBeLessThan(bar);
    }
  });
}

/** The samples of an op that have derivatives, recorded with a loss on top. */
function recordLosses<Op extends OpName>(op: Op) {
  const { make, dtypes } = samples[op] as OpSamples<Op>;
  if (!dtypes.includes("f32")) throw new Error(`${op} has no samples in f32`);
  const smooth = make("f32").filter((sample: Sample<Op>) => sample.forwardOnly !== true);
  return smooth.map((sample) => {
    const values = referenceLeaves(sample);
    const { leaves, results } = record(op, sample);
    const chosen = results.filter((_, index) => differentiable[op]?.includes(index) ?? true);
    const { loss, weights } = weigh(chosen, "w", values);
    const variables = leaves.filter(
      (variable, index) => dtypeOf(variable) === "f32" && sample.constants?.includes(index) !== true,
    );
    return { name: sample.name, loss, variables, weights, values };
  });
}

const withRule = opNames.filter((op) => typeof gradientRules[op] === "function");

test.each(withRule)("the gradient of %s is the slope of its values", (op) => {
  const recorded = recordLosses(op);
  expect(recorded.length, "samples to differentiate").toBeGreaterThan(0);
  for (const { loss, variables, weights, values } of recorded) {
    checkGradients(loss, [...variables, ...weights], values);
  }
});

test.each(opNames.filter((op) => !withRule.includes(op)))("%s says why it has no derivative", (op) => {
  const x = leaf("x", "input", [], "f32");
  const rule = gradientRules[op];
  expect(typeof rule === "function" ? "" : rule.reason).toMatch(/\w+ \w+/);
  const { make, dtypes } = samples[op] as OpSamples<typeof op>;
  const { leaves, results } = record(op, make(dtypes[0]!)[0]!);
  const variable = leaves.find((candidate) => dtypeOf(candidate) !== "i32")!;
  const result = results.find((candidate) => isFloat(dtypeOf(candidate)));
  // Gradients end at integers before they come to the op.
  if (result === undefined) return;
  const loss = add(sum(cast(result, "f32")), x);
  expect(() => gradients(loss, [variable])).toThrow(/cannot be differentiated/);
});

/** Ops whose gradients are made of ops that have gradients themselves. */
const twice: readonly OpName[] = [
  "elementwise",
  "cast",
  "reshape",
  "broadcast",
  "transpose",
  "slice",
  "pad_into",
  "concatenate",
  "gather",
  "scatter_add",
  "reduce",
  "matmul",
  "rope",
  "embedding",
  "embedding_gradient",
];

test.each(twice)("the gradient of the gradient of %s is the slope of the gradient", (op) => {
  for (const { loss, variables, weights, values } of recordLosses(op)) {
    const first = gradients(loss, [...variables, ...weights]);
    const second = weigh(first, "v", values);
    checkGradients(second.loss, [...variables, ...weights, ...second.weights], values);
  }
});

function leafOf(
  name: string,
  shape: readonly number[],
  values: readonly number[],
): [Leaf, Map<string, ReferenceTensor>] {
  return [leaf(name, "input", shape, "f32"), new Map([[name, { shape, values: Float64Array.from(values) }]])];
}

/** The gradient of the sum of `value` by a leaf, evaluated. */
function gradientAt(loss: Value, variable: Leaf, values: Leaves): number[] {
  const graph = buildGraph("gradient", [{ name: "g", value: gradients(loss, [variable])[0]! }]);
  return [...evaluate(graph, values).get("g")!.values];
}

test("x^3 has the derivatives 3x^2, 6x, 6 and 0", () => {
  const [x, values] = leafOf("x", [], [2]);
  const cube = binary("power", x, 3);
  const [first] = gradients(cube, [x]);
  const [second] = gradients(first!, [x]);
  expect(gradientAt(cube, x, values)).toEqual([12]);
  expect(gradientAt(first!, x, values)).toEqual([12]);
  expect(gradientAt(second!, x, values)).toEqual([6]);
});

test("a softmax composed of elementwise ops differentiates twice, and once like the op", () => {
  const shape = [3, 4];
  const [x, values] = leafOf("x", shape, [0.3, -1, 2, 0.5, 1, 1.1, -0.2, 0, 0.7, 0.7, -3, 1]);
  const exponentials = unary("exp", subtract(x, reduce("maximum", x, [1], true)));
  const composed = divide(exponentials, reduce("sum", exponentials, [1], true));
  const loss = (y: Value): Value => sum(multiply(multiply(y, y), y));
  checkGradients(loss(composed), [x], values);
  const fused = gradientAt(loss(apply("softmax", [x], {})), x, values);
  gradientAt(loss(composed), x, values).forEach((value, index) => {
    expect(value).toBeCloseTo(fused[index]!, 12);
  });
  const [first] = gradients(loss(composed), [x]);
  checkGradients(sum(multiply(first!, first!)), [x], values);
});

test("ties share the gradient of maximum, minimum and of reductions to extremes", () => {
  const [x, values] = leafOf("x", [4], [1, 3, 3, 0]);
  const other = apply("constant", [], { data: Float32Array.of(1, 2, 4, 0), shape: [4], dtype: "f32" });
  expect(gradientAt(sum(binary("maximum", x, other)), x, values)).toEqual([0.5, 1, 0, 0.5]);
  expect(gradientAt(sum(binary("minimum", x, other)), x, values)).toEqual([0.5, 0, 1, 0.5]);
  expect(gradientAt(sum(reduce("maximum", x, [0])), x, values)).toEqual([0, 0.5, 0.5, 0]);
});

test("powers have finite gradients at 0", () => {
  const [a, values] = leafOf("a", [3], [0, 0, 2]);
  const [b, exponents] = leafOf("b", [3], [2, 0, 3]);
  const both = new Map([...values, ...exponents]);
  const loss = sum(binary("power", a, b));
  expect(gradientAt(loss, a, both)).toEqual([0, 0, 12]);
  const byExponent = gradientAt(loss, b, both);
  expect(byExponent.slice(0, 2)).toEqual([0, 0]);
  expect(byExponent[2]).toBeCloseTo(8 * Math.log(2), 14);
});

test("the log of the sum of exponentials has a gradient of its own, in ignored rows too", () => {
  const [x, values] = leafOf("x", [2, 3], [1, 2, 3, 0, -1, 0.5]);
  const targets = constant([-1, 2], [2], "i32");
  const { node } = apply("cross_entropy", [x, targets], {});
  const logsumexp: Value = { node, index: 1 };
  checkGradients(sum(multiply(logsumexp, logsumexp)), [x], values);
});

test("gradients of statistics are refused, not dropped", () => {
  const [x] = leafOf("x", [2, 3], [1, 2, 3, 0, -1, 0.5]);
  const { node } = apply("rms_norm", [x, constant([1, 1, 1], [3])], { epsilon: 1e-5 });
  expect(() => gradients(sum({ node, index: 1 }), [x])).toThrow(
    /result 1 of rms_norm cannot be differentiated/,
  );
});

test("rows gathered from a symbolic number of rows get gradients of as many", () => {
  const rows = symbolic("rows", 5);
  const x = leaf("x", "input", [rows, 2], "f32");
  const gathered = apply("gather", [x, constant([1, 1, 0], [3], "i32")], {});
  const [gradient] = gradients(sum(multiply(gathered, gathered)), [x]);
  const graph = buildGraph("gradient", [{ name: "g", value: gradient! }]);
  const leaves = new Map([["x", { shape: [3, 2], values: Float64Array.of(1, 2, 3, 4, 5, 6) }]]);
  const { shape, values } = evaluate(graph, leaves, { rows: 3 }).get("g")!;
  expect(shape).toEqual([3, 2]);
  expect([...values]).toEqual([2, 4, 12, 16, 0, 0]);
});

test("a value that is used twice collects both gradients, one that is not used gets zeros", () => {
  const [x, values] = leafOf("x", [2], [3, -1]);
  const unused = leaf("unused", "input", [3], "f32");
  const loss = sum(add(multiply(x, x), multiply(x, 5)));
  expect(gradientAt(loss, x, values)).toEqual([11, 3]);
  expect(gradientAt(loss, unused, values)).toEqual([0, 0, 0]);
});

test("only a scalar can be differentiated", () => {
  const [x] = leafOf("x", [2], [0, 0]);
  expect(() => gradients(x, [x])).toThrow(
    /only a scalar can be differentiated[\s\S]*\[2\][\s\S]*sum or mean/,
  );
});
