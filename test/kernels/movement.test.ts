import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import { boundOf, checkKernel } from "./check.ts";
import {
  elementsOf,
  randomIntegers,
  randomTensor,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  zeros,
} from "./support.ts";

/** The index of every element of a shape, outermost axis first. */
function indices(shape: readonly number[]): number[][] {
  return Array.from({ length: elementsOf(shape) }, (_, at) => {
    const index: number[] = [];
    let rest = at;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index.unshift(rest % shape[axis]!);
      rest = Math.floor(rest / shape[axis]!);
    }
    return index;
  });
}

function flat(index: readonly number[], shape: readonly number[]): number {
  return index.reduce((at, position, axis) => at * shape[axis]! + position, 0);
}

/** Elements are moved, so results are exact: the bound is zero. */
function checkMoved(
  name: string,
  inputs: TestTensor[],
  shape: number[],
  expected: ArrayLike<number>,
  attributes: number[],
) {
  const { dtype } = inputs[0]!;
  checkKernel({ name, inputs, outputs: [{ dtype, shape, expected }], attributes, bound: 0 });
}

function sample(dtype: DType, shape: number[], seed: number): TestTensor {
  return dtype === "i32" || dtype === "u8" || dtype === "f64"
    ? tensorOf(dtype, shape, valuesOf(randomIntegers(shape, seed, 0, 250)))
    : randomTensor(dtype, shape, seed);
}

describe("transpose", () => {
  const cases: [number[], number[]][] = [
    [[], []],
    [[7], [0]],
    [
      [1, 1],
      [1, 0],
    ],
    [
      [3, 2],
      [1, 0],
    ],
    [
      [65, 70],
      [1, 0],
    ],
    [
      [400, 33],
      [1, 0],
    ],
    [
      [5, 3, 64],
      [1, 0, 2],
    ],
    [
      [9, 17, 5],
      [2, 1, 0],
    ],
    [
      [9, 17, 5],
      [2, 0, 1],
    ],
    [
      [2, 3, 4, 5],
      [3, 1, 0, 2],
    ],
    [
      [2, 3, 4, 5],
      [0, 2, 1, 3],
    ],
    [
      [3, 0, 2],
      [2, 1, 0],
    ],
    [
      [300, 1, 40],
      [2, 1, 0],
    ],
  ];
  for (const [shape, permutation] of cases) {
    test(`[${shape.join(", ")}] by (${permutation.join(", ")})`, () => {
      for (const dtype of ["f32", "bf16", "u8", "f64"] as const) {
        const x = sample(dtype, shape, 1);
        const values = valuesOf(x);
        const output = permutation.map((axis) => shape[axis]!);
        const expected = indices(output).map((index) => {
          const source = new Array<number>(shape.length);
          permutation.forEach((axis, i) => {
            source[axis] = index[i]!;
          });
          return values[flat(source, shape)]!;
        });
        checkMoved("transpose", [x], output, expected, permutation);
      }
    });
  }
});

describe("slice, pad_into, concatenate", () => {
  const cases: [number[], number[], number[]][] = [
    [[7], [2], [3]],
    [
      [70, 65],
      [1, 0],
      [63, 65],
    ],
    [
      [70, 65],
      [0, 60],
      [70, 5],
    ],
    [
      [3, 9, 17],
      [1, 2, 16],
      [2, 7, 1],
    ],
    [
      [4, 5, 6, 7],
      [0, 5, 0, 0],
      [4, 0, 6, 7],
    ],
    [
      [2, 40000],
      [0, 3],
      [2, 39990],
    ],
  ];
  for (const [shape, starts, sizes] of cases) {
    test(`box [${sizes.join(", ")}] at (${starts.join(", ")}) of [${shape.join(", ")}]`, () => {
      for (const dtype of ["f32", "f16", "u8"] as const) {
        const x = sample(dtype, shape, 1);
        const values = valuesOf(x);
        const positions = indices(sizes).map((index) =>
          flat(
            index.map((p, i) => p + starts[i]!),
            shape,
          ),
        );
        const box = positions.map((at) => values[at]!);
        checkMoved("slice", [x], sizes, box, starts);
        const padded = new Float64Array(values.length);
        for (const at of positions) padded[at] = values[at]!;
        checkMoved("pad_into", [tensorOf(dtype, sizes, box)], shape, padded, starts);
      }
    });
  }

  for (const axis of [0, 1, 2]) {
    test(`concatenation along axis ${axis}, an empty operand among them`, () => {
      const inputs = [3, 0, 1, 65].map((size, i) => {
        const shape = [5, 4, 33];
        shape[axis] = size;
        return randomTensor("bf16", shape, i + 1);
      });
      const shape = [5, 4, 33];
      shape[axis] = 69;
      const expected = indices(shape).map((index) => {
        let position = index[axis]!;
        const input = inputs.find((candidate) => {
          if (position < candidate.shape[axis]!) return true;
          position -= candidate.shape[axis]!;
          return false;
        })!;
        return valuesOf(input)[flat(index.with(axis, position), input.shape)]!;
      });
      checkMoved("concatenate", inputs, shape, expected, [axis]);
    });
  }
});

describe("gather, embedding and their gradients", () => {
  const cases: [number[], number[]][] = [
    [[1, 1], [1]],
    [[5, 7], [3]],
    [
      [65, 63],
      [2, 9],
    ],
    [[300, 130], [700]],
    [
      [11, 2, 3],
      [4, 5],
    ],
    [[9], [17]],
    [[6, 5], [0]],
    [[3, 5000], [40]],
  ];
  for (const [shape, idShape] of cases) {
    test(`[${shape.join(", ")}] at [${idShape.join(", ")}] ids`, () => {
      const [rows = 0, ...inner] = shape;
      const width = elementsOf(inner);
      const ids = randomIntegers(idShape, 1, 0, rows);
      const output = [...idShape, ...inner];
      const picked = valuesOf(ids);
      for (const dtype of ["f32", "bf16"] as const) {
        const x = randomTensor(dtype, shape, 2);
        const values = valuesOf(x);
        const expected = Float64Array.from(
          { length: elementsOf(output) },
          (_, at) => values[picked[Math.floor(at / width)]! * width + (at % width)]!,
        );
        checkKernel({
          name: "gather",
          inputs: [x, ids],
          outputs: [{ dtype, shape: output, expected }],
          bound: 0,
        });
        const converted = [{ dtype: "f32" as const, shape: output, expected }];
        checkKernel({ name: "embedding", inputs: [x, ids], outputs: converted, bound: 0 });

        const dY = randomTensor(dtype, output, 3);
        const gradients = valuesOf(dY);
        const dX = new Float64Array(elementsOf(shape));
        gradients.forEach((gradient, at) => {
          const target = picked[Math.floor(at / width)]! * width + (at % width);
          dX[target] = dX[target]! + gradient;
        });
        const reduction = 1 + elementsOf(idShape) / rows;
        for (const outputType of ["f32", "bf16"] as const) {
          const outputs = [{ dtype: outputType, shape, expected: dX }];
          checkKernel({ name: "scatter_add", inputs: [dY, ids], outputs, reduction });
        }
        for (const accumulate of [0, 1]) {
          const initial = randomTensor("f32", shape, 4);
          const start = valuesOf(initial);
          const summed = dX.map((value, i) => value + accumulate * start[i]!);
          const outputs = [{ dtype: "f32" as const, shape, initial, expected: summed }];
          checkKernel({
            name: "embedding_gradient",
            inputs: [dY, ids],
            outputs,
            attributes: [accumulate],
            reduction,
          });
        }
      }
    });
  }

  test("an id outside the table reads zeros and writes nothing", () => {
    const x = randomTensor("f32", [4, 5], 1);
    const ids = tensorOf("i32", [4], [-1, 2, 4, 2_000_000_000]);
    const row = [...valuesOf(x).subarray(10, 15)];
    const nothing = new Array<number>(5).fill(0);
    const expected = [...nothing, ...row, ...nothing, ...nothing];
    checkKernel({
      name: "embedding",
      inputs: [x, ids],
      outputs: [{ dtype: "f32", shape: [4, 5], expected }],
    });
    const ones = tensorOf("f32", [4, 5], new Float64Array(20).fill(1));
    const sums = Float64Array.from({ length: 20 }, (_, i) => (i >= 10 && i < 15 ? 1 : 0));
    for (const dtype of ["f32", "bf16"] as const) {
      checkKernel({
        name: "scatter_add",
        inputs: [ones, ids],
        outputs: [{ dtype, shape: [4, 5], expected: sums }],
      });
    }
  });
});

describe("reduce", () => {
  const cases: [number[], number[]][] = [
    [[7], [0]],
    [[], []],
    [[3, 5], []],
    [[65, 63], [1]],
    [[65, 63], [0]],
    [[1000, 17], [0]],
    [[17, 5000], [1]],
    [
      [3, 4, 5],
      [0, 2],
    ],
    [[3, 4, 5], [1]],
    [
      [2, 3, 4, 5, 6],
      [1, 3],
    ],
    [
      [2, 3, 4, 5, 6],
      [0, 2, 4],
    ],
    [[300, 7, 130], [0]],
    [
      [300, 7, 130],
      [0, 2],
    ],
    [[600, 700], [0]],
    [
      [600, 700],
      [0, 1],
    ],
    [[5, 0, 3], [1]],
    [[0, 3], [1]],
  ];
  const folds = [
    { kind: "sum", start: 0, fold: (a: number, b: number) => a + b },
    { kind: "maximum", start: -Infinity, fold: (a: number, b: number) => Math.max(a, b) },
    { kind: "minimum", start: Infinity, fold: (a: number, b: number) => Math.min(a, b) },
  ];
  for (const [shape, axes] of cases) {
    test(`[${shape.join(", ")}] over (${axes.join(", ")})`, () => {
      for (const [dtype, outputType] of [
        ["f32", "f32"],
        ["bf16", "f32"],
        ["bf16", "bf16"],
      ] as [DType, DType][]) {
        const x = randomTensor(dtype, shape, 1);
        const values = valuesOf(x);
        const output = shape.filter((_, axis) => !axes.includes(axis));
        folds.forEach(({ start, fold }, kind) => {
          const expected = new Float64Array(elementsOf(output)).fill(start);
          const terms = new Float64Array(elementsOf(output));
          indices(shape).forEach((index, at) => {
            const target = flat(
              index.filter((_, axis) => !axes.includes(axis)),
              output,
            );
            expected[target] = fold(expected[target]!, values[at]!);
            terms[target] = terms[target]! + Math.abs(values[at]!);
          });
          if (expected.some((value) => !Number.isFinite(value))) {
            for (const isa of runnableIsas()) {
              const y = zeros(outputType, output);
              runKernel("reduce", isa, [x], [y], [kind, ...axes]);
              expect(valuesOf(y)).toEqual(expected);
            }
            return;
          }
          const outputs = [{ dtype: outputType, shape: output, expected, terms }];
          // Terms are summed blockwise: the error does not grow with their number.
          const bound = boundOf(outputType, 1);
          checkKernel({ name: "reduce", inputs: [x], outputs, attributes: [kind, ...axes], bound });
        });
      }
    });
  }

  test("a million ones and a NaN", () => {
    const count = 2 ** 20 + 3;
    const x = tensorOf("f32", [count], new Float64Array(count).fill(0.1));
    const exact = count * Math.fround(0.1);
    for (const isa of runnableIsas()) {
      const y = zeros("f32", []);
      runKernel("reduce", isa, [x], [y], [0, 0], 2);
      expect(Math.abs(valuesOf(y)[0]! / exact - 1)).toBeLessThanOrEqual(2e-7);
      const poisoned = { ...x, data: x.data.slice() };
      poisoned.data[count - 2] = Number.NaN;
      for (const kind of [0, 1, 2]) {
        runKernel("reduce", isa, [poisoned], [y], [kind, 0], 2);
        expect(valuesOf(y)[0]).toBeNaN();
      }
    }
  });
});

describe("copy, fill, iota", () => {
  test("copy converts between float dtypes, rounding ties to even, and keeps what is not finite", () => {
    const special = [
      0,
      -0,
      1,
      1.00390625,
      1.01171875,
      65504,
      65520,
      1e-7,
      6e-8,
      1e-41,
      Infinity,
      -Infinity,
      NaN,
    ];
    for (const from of ["f32", "bf16", "f16"] as const) {
      for (const to of ["f32", "bf16", "f16"] as const) {
        for (const size of [0, 1, 13, 65, 9001]) {
          const values = Array.from(
            { length: size },
            (_, i) => special[i % special.length]! * (1 + (i >> 4)),
          );
          const x = tensorOf(from, [size], values);
          const expected = valuesOf(tensorOf(to, [size], valuesOf(x)));
          for (const isa of runnableIsas()) {
            const y = zeros(to, [size]);
            runKernel("copy", isa, [x], [y], [], 2);
            expect(valuesOf(y)).toEqual(expected);
          }
        }
      }
    }
  });

  test("fill and iota, every dtype", () => {
    for (const dtype of ["f32", "bf16", "f16", "i32", "u8", "i8", "f64"] as const) {
      const expected = new Float64Array(3 * 65).fill(100);
      checkKernel({
        name: "fill",
        inputs: [],
        outputs: [{ dtype, shape: [3, 65], expected }],
        attributes: [100],
        bound: 0,
      });
    }
    for (const dtype of ["f32", "bf16", "f16", "i32", "u8"] as const) {
      for (const axis of [0, 1, 2]) {
        const shape = [3, 17, 5];
        const expected = indices(shape).map((index) => index[axis]!);
        checkKernel({
          name: "iota",
          inputs: [],
          outputs: [{ dtype, shape, expected }],
          attributes: [axis],
          bound: 0,
        });
      }
    }
    const long = 2 ** 24 + 3;
    const y = zeros("i32", [long]);
    runKernel("iota", "scalar", [], [y], [0]);
    expect(y.data[long - 1]).toBe(long - 1);
  });
});
