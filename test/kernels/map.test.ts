import { describe, expect, test } from "vitest";
import { type DType, roundTo } from "../../src/base/dtype.ts";
import {
  arity,
  binaryOperations,
  type ElementwiseOperation,
  elementwiseOpcodes,
  type Instruction,
  type RoundingOperation,
  roundingOperations,
  ternaryOperations,
  unaryOperations,
} from "../../src/graph/expression.ts";
import { boundOf, checkKernel } from "./check.ts";
import {
  copyOf,
  elementsOf,
  randomTensor,
  relativeError,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  zeros,
} from "./support.ts";

/** erf by its Taylor series, or one minus its continued fraction: float64 all over. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 100; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

const meaning: Record<ElementwiseOperation | RoundingOperation, (a: number, b: number, c: number) => number> =
  {
    negate: (a) => -a,
    absolute: Math.abs,
    exp: Math.exp,
    log: Math.log,
    sqrt: Math.sqrt,
    rsqrt: (a) => 1 / Math.sqrt(a),
    reciprocal: (a) => 1 / a,
    tanh: Math.tanh,
    sigmoid,
    relu: (a) => Math.max(0, a),
    silu: (a) => (a === -Infinity ? 0 : a * sigmoid(a)),
    gelu: (a) => (a === -Infinity ? 0 : (a / 2) * (1 + erf(a * Math.SQRT1_2))),
    gelu_tanh: (a) =>
      a === -Infinity ? 0 : a * sigmoid(2 * Math.sqrt(2 / Math.PI) * (a + 0.044715 * a ** 3)),
    erf,
    sin: Math.sin,
    cos: Math.cos,
    sign: Math.sign,
    floor: Math.floor,
    is_finite: (a) => (Number.isFinite(a) ? 1 : 0),
    add: (a, b) => a + b,
    subtract: (a, b) => a - b,
    multiply: (a, b) => a * b,
    divide: (a, b) => a / b,
    maximum: (a, b) => Math.max(a, b),
    minimum: (a, b) => Math.min(a, b),
    power: (a, b) => a ** b,
    less: (a, b) => (a < b ? 1 : 0),
    less_equal: (a, b) => (a <= b ? 1 : 0),
    equal: (a, b) => (a === b ? 1 : 0),
    select: (a, b, c) => (a !== 0 ? b : c),
    round_bf16: (a) => roundTo("bf16", a),
    round_f16: (a) => roundTo("f16", a),
  };

/** The attributes of a `map` kernel. */
function encodeProgram(instructions: readonly Instruction[]): number[] {
  const attributes = [instructions.length];
  for (const instruction of instructions) {
    const opcode = elementwiseOpcodes.indexOf(instruction.operation);
    if (instruction.operation === "constant") attributes.push(opcode, 0, 0, 0, instruction.value);
    else {
      const [a = 0, b = 0, c = 0] = instruction.operands;
      attributes.push(opcode, a, b, c, 0);
    }
  }
  return attributes;
}

/** The program's meaning, in float64 over the operands' values, with broadcasting. */
function evaluate(
  instructions: readonly Instruction[],
  inputs: readonly TestTensor[],
  shape: readonly number[],
) {
  const contents = inputs.map(valuesOf);
  return Float64Array.from({ length: elementsOf(shape) }, (_, at) => {
    const values = inputs.map((input, index) => {
      let [rest, offset, stride] = [at, 0, 1];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        const position = rest % shape[axis]!;
        rest = Math.floor(rest / shape[axis]!);
        const own = axis - shape.length + input.shape.length;
        if (own < 0) continue;
        if (input.shape[own] !== 1) offset += position * stride;
        stride *= input.shape[own]!;
      }
      return contents[index]![offset]!;
    });
    for (const instruction of instructions) {
      if (instruction.operation === "constant") values.push(instruction.value);
      else {
        const [a, b, c] = instruction.operands.map((operand) => values[operand]!);
        values.push(meaning[instruction.operation](a!, b!, c!));
      }
    }
    return values.at(-1)!;
  });
}

function checkMap(
  instructions: readonly Instruction[],
  inputs: readonly TestTensor[],
  shape: readonly number[],
  dtype: DType = "f32",
): void {
  checkKernel({
    name: "map",
    inputs,
    outputs: [{ dtype, shape, expected: evaluate(instructions, inputs, shape) }],
    attributes: encodeProgram(instructions),
    reduction: 4 * instructions.length,
  });
}

const step = (operation: ElementwiseOperation | RoundingOperation, ...operands: number[]): Instruction => ({
  operation,
  operands,
});
const constant = (value: number): Instruction => ({ operation: "constant", value });

describe("map: every operation", () => {
  const every = [...unaryOperations, ...binaryOperations, ...ternaryOperations, ...roundingOperations];
  for (const operation of every) {
    test(`${operation} against float64, element by element`, () => {
      const positive = ["log", "sqrt", "rsqrt", "power"].includes(operation);
      for (const scale of [1e-3, 1, 8]) {
        for (const size of [1, 2, 3, 7, 17, 63, 65, 1000, 5003]) {
          const inputs = Array.from({ length: arity(operation) }, (_, i) => {
            const x = randomTensor(
              "f32",
              [size],
              10 * size + i,
              i === 0 || operation !== "power" ? scale : 1,
            );
            const values = valuesOf(x).map((value) => (positive && i === 0 ? Math.abs(value) : value));
            return tensorOf("f32", [size], values);
          });
          const program = [step(operation, ...inputs.map((_, i) => i))];
          const expected = evaluate(program, inputs, [size]);
          for (const isa of runnableIsas()) {
            const y = zeros("f32", [size]);
            runKernel("map", isa, inputs, [y], encodeProgram(program));
            const worst = valuesOf(y).reduce((most, value, i) => {
              // gelu is a product with a difference from 1, sines have zeros: there the error is absolute.
              const least = ["gelu", "gelu_tanh"].includes(operation)
                ? Math.abs(valuesOf(inputs[0]!)[i]!)
                : 0;
              const absolute = ["sin", "cos"].includes(operation) ? 1 : least;
              const floor = Math.max(Math.abs(expected[i]!), absolute, 1e-30);
              return Math.max(most, Math.abs(value - expected[i]!) / floor);
            }, 0);
            expect(worst, `${operation} of ${size} elements on ${isa}`).toBeLessThanOrEqual(4e-7);
          }
        }
      }
    });
  }

  test("infinities, NaN, zeros, subnormal and huge numbers", () => {
    const special = [
      Infinity,
      -Infinity,
      Number.NaN,
      0,
      1,
      -1,
      1e-40,
      -1e-40,
      3e38,
      -3e38,
      89,
      -104,
      20,
      -20,
      1e10,
    ];
    for (const operation of every) {
      const pairs = arity(operation) === 1 ? [0] : special;
      const [as, bs]: [number[], number[]] = [[], []];
      for (const a of special) for (const b of pairs) as.push(a) && bs.push(b);
      const inputs = [as, bs, bs.toReversed()]
        .slice(0, arity(operation))
        .map((values) => tensorOf("f32", [values.length], values));
      const program = [step(operation, ...inputs.map((_, i) => i))];
      const expected = evaluate(program, inputs, [as.length]).map((value) => roundTo("f32", value));
      for (const isa of runnableIsas()) {
        const y = zeros("f32", [as.length]);
        runKernel("map", isa, inputs, [y], encodeProgram(program));
        valuesOf(y).forEach((value, i) => {
          const label = `${operation}(${as[i]}, ${bs[i]}) on ${isa}`;
          if (operation === "power" && Math.abs(as[i]!) === 1 && !(Math.abs(bs[i]!) < 1e9)) return; // 1^inf: C says 1
          if (!Number.isFinite(expected[i]!)) expect(value, label).toBe(expected[i]);
          else
            expect(Math.abs(value - expected[i]!), label).toBeLessThanOrEqual(
              4e-7 * Math.abs(expected[i]!) + 1e-37,
            );
        });
      }
    }
  });
});

describe("map: programs", () => {
  const swiglu = [step("silu", 0), step("multiply", 1, 2)];
  const sizes = [[1], [7], [65], [1000], [3, 1000], [5, 1025], [0, 4], [2048, 40]];
  for (const shape of sizes) {
    test(`SwiGLU and a residual, [${shape.join(", ")}], any float dtypes`, () => {
      for (const [a, b, out] of [
        ["f32", "f32", "f32"],
        ["bf16", "bf16", "bf16"],
        ["bf16", "f32", "f16"],
        ["f16", "bf16", "f32"],
      ] as DType[][]) {
        const inputs = [randomTensor(a!, shape, 1), randomTensor(b!, shape, 2)];
        checkMap(swiglu, inputs, shape, out);
        checkMap([step("add", 0, 1)], inputs, shape, out);
      }
    });
  }

  test("broadcasting: scalars, rows, columns, middle axes, periods that divide no block", () => {
    const cases: [number[], number[][]][] = [
      [
        [6, 512],
        [[512], [6, 1], [1]],
      ],
      [
        [70, 600],
        [[70, 600], [600], [70, 1]],
      ],
      [
        [9, 1500],
        [[1500], [9, 1], []],
      ],
      [
        [4, 5, 6],
        [
          [4, 1, 6],
          [5, 1],
          [4, 5, 6],
        ],
      ],
      [
        [3, 4, 5, 7],
        [
          [1, 4, 1, 7],
          [3, 1, 5, 1],
          [4, 5, 7],
        ],
      ],
      [
        [700, 3],
        [[3], [700, 1], [700, 3]],
      ],
      [
        [40, 7, 90],
        [[7, 90], [90], [40, 1, 90]],
      ],
      [
        [1, 1],
        [[], [1], [1, 1]],
      ],
    ];
    for (const [shape, shapes] of cases) {
      for (const dtype of ["f32", "bf16"] as const) {
        const inputs = shapes.map((own, i) => randomTensor(i === 1 ? "f32" : dtype, own, i + 1));
        checkMap([step("multiply", 0, 1), step("add", 3, 2)], inputs, shape, dtype);
      }
    }
  });

  test("many values, values used twice, constants, buffers used again", () => {
    // Inputs 0 to 6; each partial result feeds two later instructions.
    const inputs = Array.from({ length: 7 }, (_, i) =>
      randomTensor("f32", i % 3 === 2 ? [1300] : [3, 1300], i),
    );
    const program: Instruction[] = [constant(0.5), constant(3)];
    let last = 7;
    for (let i = 0; i < 7; i++) {
      program.push(step("multiply", i, last), step("add", 6 + program.length + 1, i));
      last = 6 + program.length;
    }
    program.push(
      constant(1e-3),
      step("multiply", last, 6 + program.length + 1),
      step("tanh", 6 + program.length + 2),
    );
    program.push(step("select", 0, 6 + program.length, 8));
    checkMap(program, inputs, [3, 1300]);
  });

  test("powers by constants, a result that is a constant, and no instruction at all", () => {
    const x = randomTensor("f32", [100], 1, 3);
    for (const exponent of [2, -1, 3]) checkMap([constant(exponent), step("power", 0, 1)], [x], [100]);
    checkMap([constant(2.5)], [x], [100], "bf16");
    checkMap([], [randomTensor("bf16", [1, 33], 2)], [5, 33]);
    const pair = [randomTensor("f32", [33], 3), randomTensor("f32", [5, 33], 4)];
    checkKernel({
      name: "map",
      inputs: pair,
      outputs: [{ dtype: "f32", shape: [5, 33], expected: evaluate([], pair.slice(0, 1), [5, 33]) }],
      attributes: [0],
      bound: 0,
    });
  });

  test("integers in and out, truncated", () => {
    const a = tensorOf(
      "i32",
      [70],
      Array.from({ length: 70 }, (_, i) => i - 35),
    );
    const b = tensorOf(
      "u8",
      [70],
      Array.from({ length: 70 }, (_, i) => i * 3),
    );
    for (const isa of runnableIsas()) {
      const y = zeros("i32", [70]);
      runKernel(
        "map",
        isa,
        [a, b],
        [y],
        encodeProgram([constant(0.75), step("multiply", 0, 2), step("add", 3, 1)]),
      );
      expect([...y.data]).toEqual(Array.from({ length: 70 }, (_, i) => Math.trunc((i - 35) * 0.75 + i * 3)));
      const bytes = zeros("u8", [70]);
      runKernel("map", isa, [b, a], [bytes], encodeProgram([step("less", 0, 1)]));
      expect([...bytes.data]).toEqual(Array.from({ length: 70 }, (_, i) => (i * 3 < i - 35 ? 1 : 0)));
    }
  });

  test("in place: the output is the memory of an input", () => {
    const program = [step("add", 0, 1), step("multiply", 2, 0)];
    for (const dtype of ["f32", "bf16"] as const) {
      const [a, b] = [randomTensor(dtype, [9, 701], 1), randomTensor(dtype, [701], 2)];
      const expected = evaluate(program, [a, b], [9, 701]);
      for (const isa of runnableIsas()) {
        for (const threads of [1, 3]) {
          const place = copyOf(a);
          runKernel("map", isa, [place, b], [place], encodeProgram(program), threads);
          expect(relativeError(valuesOf(place), expected)).toBeLessThanOrEqual(2 * boundOf(dtype, 4));
        }
      }
    }
  });
});
