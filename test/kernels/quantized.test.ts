import { describe, expect, test } from "vitest";
import { type DType, toF16Bits } from "../../src/base/dtype.ts";
import {
  blockLayout,
  blockTypes,
  formatName,
  formatOfBlocks,
  groupsOf,
  packedBytes,
  paddedColumns,
  type QuantizedFormat,
} from "../../src/base/quantized_format.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { readBlock } from "../../src/graph/rules/references/quantized_blocks.ts";
import { QuantizedPanels } from "../../src/graph/rules/references/quantized_panels.ts";
import { randomBlocks } from "../conformance/samples/quantized.ts";
import { checkKernel } from "./check.ts";
import {
  bytesOf,
  randomTensor,
  relativeError,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  variantsOf,
  zeros,
} from "./support.ts";

const formats: readonly QuantizedFormat[] = [
  { bits: 8, group: 0, minimum: false },
  { bits: 8, group: 16, minimum: false },
  { bits: 8, group: 32, minimum: false },
  { bits: 8, group: 32, minimum: true },
  { bits: 8, group: 48, minimum: false },
  { bits: 4, group: 16, minimum: true },
  { bits: 4, group: 32, minimum: false },
  { bits: 4, group: 32, minimum: true },
  { bits: 4, group: 128, minimum: false },
];
const isas = ["scalar" as const, ...variantsOf("matmul_quantized")];

/** A packed matrix of random integers over the whole range, with scales (and minimums) of `scaleOf`. */
function randomPanels(format: QuantizedFormat, rows: number, columns: number, scaleOf: () => number) {
  const source = new PhiloxStream(5);
  const panels = new QuantizedPanels({ format, rows, columns });
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < panels.groups; g++) {
      panels.setScale(row, g, scaleOf());
      if (format.minimum) panels.setMinimum(row, g, scaleOf());
    }
    for (let k = 0; k < columns; k++) panels.set(row, k, source.nextBelow(2 ** format.bits));
  }
  return panels;
}

const packedTensor = ({ bytes }: QuantizedPanels): TestTensor => ({
  dtype: "u8",
  shape: [bytes.length],
  data: bytes,
});

/** Rows of random bytes with their sums and scales of `scaleOf`, as `quantize_rows` would leave them. */
function randomRows(format: QuantizedFormat, rows: number, inner: number, scaleOf: () => number) {
  const source = new PhiloxStream(6);
  const [groups, padded] = [groupsOf(format.group, inner), paddedColumns(format.group, inner)];
  const step = format.group === 0 ? padded : format.group;
  const values = zeros("i8", [rows, padded]);
  const scales = zeros("f32", [rows, groups]);
  const sums = zeros("i32", [rows, groups]);
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < inner; k++) {
      const value = source.nextBelow(256) - 128;
      values.data[row * padded + k] = value;
      sums.data[row * groups + Math.floor(k / step)]! += value;
    }
    for (let g = 0; g < groups; g++) scales.data[row * groups + g] = scaleOf();
  }
  return { values, scales, sums, padded, groups, step };
}

const attributesOf = (format: QuantizedFormat, inner: number, columns: number, extra = [0, 1, 0, 0]) => [
  inner,
  format.group,
  ...extra,
  format.bits,
  Number(format.minimum),
  columns,
];

describe.each(formats)("$bits bits, group $group, minimum $minimum", (format) => {
  const name = formatName(format);

  test("products of integers are exact", () => {
    const [inner, columns] = [172, 45];
    const panels = randomPanels(format, columns, inner, () => 1);
    for (const rows of [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 35]) {
      const { values, scales, sums, padded } = randomRows(format, rows, inner, () => 1);
      const expected = new Float64Array(rows * columns);
      for (let column = 0; column < columns; column++) {
        const weights = panels.row(column);
        for (let row = 0; row < rows; row++) {
          weights.forEach((w, k) => {
            expected[row * columns + column]! += w * values.data[row * padded + k]!;
          });
        }
      }
      for (const isa of isas) {
        const y = zeros("f32", [rows, columns]);
        const inputs = [values, scales, sums, packedTensor(panels)];
        runKernel("matmul_quantized", isa, inputs, [y], attributesOf(format, inner, columns));
        expect(valuesOf(y), `${name}, ${rows} rows on ${isa}`).toEqual(expected);
      }
    }
  });

  test("an element has the same bits in any batch, on any number of threads and every instruction set", () => {
    const [rows, inner, columns] = [37, 700, 70];
    const source = new PhiloxStream(7);
    const panels = randomPanels(format, columns, inner, () => 0.01 * source.nextNormal());
    const scaleOf = () => Math.exp(source.nextNormal());
    const { values, scales, sums, padded, groups } = randomRows(format, rows, inner, scaleOf);
    const run = (isa: (typeof isas)[number], first: number, count: number, threads: number): Uint8Array => {
      const part = (tensor: TestTensor, size: number): TestTensor => ({
        ...tensor,
        shape: [count, size],
        data: tensor.data.slice(first * size, (first + count) * size),
      });
      const y = zeros("f32", [count, columns]);
      const inputs = [part(values, padded), part(scales, groups), part(sums, groups), packedTensor(panels)];
      runKernel("matmul_quantized", isa, inputs, [y], attributesOf(format, inner, columns), threads);
      return bytesOf(y);
    };
    const expected = run("scalar", 0, rows, 1);
    const rowBytes = 4 * columns;
    for (const isa of isas) {
      for (const threads of [1, 2, 3]) {
        expect(run(isa, 0, rows, threads), `${name} on ${isa}, ${threads} threads`).toEqual(expected);
      }
      for (const [first, count] of [
        [0, 1],
        [28, 1],
        [3, 2],
        [4, 5],
        [10, 6],
        [7, 8],
        [1, 13],
        [5, 16],
      ] as const) {
        const wanted = expected.slice(first * rowBytes, (first + count) * rowBytes);
        expect(run(isa, first, count, 2), `${name} on ${isa}, rows ${first}, ${count}`).toEqual(wanted);
      }
    }
  });

  test("matrices from floats have the same bits everywhere, and few errors", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      const x = randomTensor(dtype, [70, 172], 8, 0.02);
      const values = valuesOf(x);
      const attributes = [format.bits, format.group, Number(format.minimum)];
      let first: Uint8Array | undefined;
      for (const isa of isas) {
        for (const threads of [1, 3]) {
          const packed = zeros("u8", [packedBytes(format, 70, 172)]);
          runKernel("quantize_matrix", isa, [x], [packed], attributes, threads);
          first ??= bytesOf(packed);
          expect(bytesOf(packed), `${name} on ${isa}`).toEqual(first);
        }
      }
      const panels = new QuantizedPanels({ format, rows: 70, columns: 172 }, first);
      const restored = Float64Array.from({ length: 70 }, (_, row) => row).reduce<number[]>((all, row) => {
        all.push(...panels.row(row));
        return all;
      }, []);
      // The error of uniform steps over the range of a few dozen normal numbers.
      const bar = format.bits === 8 ? 0.01 : format.group <= 32 ? (format.minimum ? 0.085 : 0.1) : 0.12;
      expect(relativeError(restored, values), name).toBeLessThan(bar);
    }
  });

  test("rows of packed matrices", () => {
    const panels = randomPanels(format, 45, 100, () => 0.37);
    const ids = tensorOf("i32", [3], [44, 0, 33]);
    const attributes = [format.bits, format.group, Number(format.minimum), 100];
    for (const dtype of ["f32", "bf16", "f16"] as DType[]) {
      checkKernel({
        name: "embedding_quantized",
        inputs: [packedTensor(panels), ids],
        outputs: [{ dtype, shape: [3, 100], expected: [44, 0, 33].flatMap((id) => [...panels.row(id)]) }],
        attributes,
      });
      checkKernel({
        name: "dequantize_matrix",
        inputs: [packedTensor(panels)],
        outputs: [
          {
            dtype,
            shape: [45, 100],
            expected: Array.from({ length: 45 }, (_, row) => [...panels.row(row)]).flat(),
          },
        ],
        attributes,
      });
    }
  });
});

describe.each(blockTypes)("%s blocks", (type) => {
  test("hold the values that their bytes stand for", () => {
    const { elements, bytes } = blockLayout(type);
    const [rows, columns] = [35, 3 * elements];
    const { values } = randomBlocks(type, rows, columns, 9);
    const raw = Uint8Array.from(values);
    const format = formatOfBlocks(type);
    const expected = Array.from({ length: raw.length / bytes }, (_, index) =>
      readBlock(type, raw.subarray(index * bytes)).flatMap(({ q, zero, scale, minimum }) =>
        q.map((value) => scale * (value - zero) - minimum),
      ),
    ).flat();
    let first: Uint8Array | undefined;
    for (const isa of isas) {
      for (const threads of [1, 3]) {
        const packed = zeros("u8", [packedBytes(format, rows, columns)]);
        const blocks: TestTensor = { dtype: "u8", shape: [raw.length], data: raw };
        runKernel(
          "repack_blocks",
          isa,
          [blocks],
          [packed],
          [blockTypes.indexOf(type), rows, columns],
          threads,
        );
        first ??= bytesOf(packed);
        expect(bytesOf(packed), isa).toEqual(first);
      }
    }
    const panels = new QuantizedPanels({ format, rows, columns }, first);
    const restored = Array.from({ length: rows }, (_, row) => [...panels.row(row)]).flat();
    // Scales of the k types are products, rounded to float16.
    expect(relativeError(restored, expected)).toBeLessThanOrEqual(type.endsWith("_0") ? 0 : 5e-4);
  });
});

test("bytes of blocks, calculated by hand", () => {
  // q8_0: scale 0.5, weights 0, 1, 2, .. and a -128. q4_0: scale 2, nibbles 0 to 15 and down again.
  const half = (value: number): number[] => [toF16Bits(value) & 255, toF16Bits(value) >> 8];
  const q8 = Uint8Array.from([...half(0.5), 0x80, ...Array.from({ length: 31 }, (_, i) => i + 1)]);
  const [eight] = readBlock("q8_0", q8);
  expect(eight!.q.map((q) => q * eight!.scale)).toEqual([
    -64,
    ...Array.from({ length: 31 }, (_, i) => (i + 1) / 2),
  ]);
  const q4 = Uint8Array.from([...half(2), ...Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4))]);
  const [four] = readBlock("q4_0", q4);
  const values = four!.q.map((q) => (q - four!.zero) * four!.scale);
  expect(values.slice(0, 3)).toEqual([-16, -14, -12]);
  expect(values.slice(16, 19)).toEqual([14, 12, 10]);
});

describe("quantize_rows", () => {
  test("has the same bits everywhere and is within half a step", () => {
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      for (const group of [0, 16, 32, 128]) {
        const [rows, inner] = [9, 300];
        const x = randomTensor(dtype, [rows, inner], 10, 3);
        const [groups, padded] = [groupsOf(group, inner), paddedColumns(group, inner)];
        let first: string[] | undefined;
        for (const isa of isas) {
          for (const threads of [1, 3]) {
            const made = [
              zeros("i8", [rows, padded]),
              zeros("f32", [rows, groups]),
              zeros("i32", [rows, groups]),
            ];
            runKernel("quantize_rows", isa, [x], made, [group], threads);
            first ??= made.map((tensor) => String(bytesOf(tensor)));
            expect(
              made.map((tensor) => String(bytesOf(tensor))),
              `${dtype} on ${isa}`,
            ).toEqual(first);
            const [values, scales, sums] = made.map((tensor) => tensor.data);
            valuesOf(x).forEach((value, index) => {
              const [row, k] = [Math.floor(index / inner), index % inner];
              const scale = scales![row * groups + (group === 0 ? 0 : Math.floor(k / group))]!;
              expect(Math.abs(values![row * padded + k]! * scale - value)).toBeLessThanOrEqual(
                0.5001 * scale,
              );
            });
            for (let row = 0; row < rows; row++) {
              const total = (data: ArrayLike<number>, size: number) =>
                Array.from({ length: size }, (_, i) => data[row * size + i]!).reduce((a, b) => a + b, 0);
              expect(total(sums!, groups)).toBe(total(values!, padded));
            }
          }
        }
      }
    }
  });

  test("infinities and NaN reach the products", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const x = tensorOf(
        "f32",
        [2, 32],
        Float64Array.from({ length: 64 }, (_, i) => (i === 40 ? bad : 1)),
      );
      for (const isa of isas) {
        const made = [zeros("i8", [2, 32]), zeros("f32", [2, 1]), zeros("i32", [2, 1])];
        runKernel("quantize_rows", isa, [x], made, [32]);
        const format = { bits: 8, group: 32, minimum: false } as const;
        const y = zeros("f32", [2, 3]);
        const weights = packedTensor(randomPanels(format, 3, 32, () => 1));
        runKernel("matmul_quantized", isa, [...made, weights], [y], attributesOf(format, 32, 3));
        expect([...y.data].map(Number.isFinite), isa).toEqual([true, true, true, false, false, false]);
      }
    }
  });
});

describe.each(runnableIsas())("measure_byte_peak on %s", (isa) => {
  test("counts the operations that it does", () => {
    const lanes: Record<string, number> = { scalar: 1, neon: 4, avx2: 8 };
    for (const threads of [1, 3]) {
      const operations = zeros("f32", [1]);
      runKernel("measure_byte_peak", isa, [], [operations], [50], threads);
      const products = isa.startsWith("amx") ? 4 * 16 * 16 * 64 : 4 * 12 * (lanes[isa] ?? 16);
      expect(valuesOf(operations)[0]).toBe(2 * products * 50 * threads);
    }
  });
});
