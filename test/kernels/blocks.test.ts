import { expect, test } from "vitest";
import { bytesOf, randomTensor, runKernel, tensorOf, valuesOf, variantsOf, zeros } from "./support.ts";

const isas = ["scalar" as const, ...variantsOf("quantize_blocks")];
const [rows, columns] = [3, 1337];

function quantize(
  x: ReturnType<typeof randomTensor>,
  bits: number,
  block: number,
  isa = isas[0]!,
  threads = 1,
) {
  const made = [
    zeros("u8", [rows, bits === 8 ? columns : Math.ceil(columns / 2)]),
    zeros("f32", [rows, Math.ceil(columns / block)]),
  ];
  runKernel("quantize_blocks", isa, [x], made, [bits, block], threads);
  return made;
}

test.each([
  [8, 64],
  [8, 2048],
  [4, 64],
  [4, 602],
])("%i bits in blocks of %i: the same bits everywhere, and within half a step", (bits, block) => {
  const x = randomTensor("f32", [rows, columns], 4, 7);
  const first = quantize(x, bits, block);
  for (const isa of isas) {
    for (const threads of [1, 3]) {
      const made = quantize(x, bits, block, isa, threads);
      expect(made.map(bytesOf), isa).toEqual(first.map(bytesOf));
      const y = zeros("f32", [rows, columns]);
      runKernel("dequantize_blocks", isa, made, [y], [bits, block], threads);
      const scales = valuesOf(first[1]!);
      const perRow = Math.ceil(columns / block);
      valuesOf(x).forEach((value, index) => {
        const [row, k] = [Math.floor(index / columns), index % columns];
        const scale = scales[row * perRow + Math.floor(k / block)]!;
        expect(Math.abs(y.data[index]! - value)).toBeLessThanOrEqual(0.5001 * scale);
      });
    }
  }
});

test("infinities and NaN stay in their block", () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const values = Float64Array.from({ length: rows * columns }, (_, index) => (index === 100 ? bad : 1));
    for (const isa of isas) {
      const y = zeros("f32", [rows, columns]);
      runKernel(
        "dequantize_blocks",
        isa,
        quantize(tensorOf("f32", [rows, columns], values), 4, 64, isa),
        [y],
        [4, 64],
      );
      const finite = [...y.data].map(Number.isFinite);
      expect(finite.indexOf(false)).toBe(64);
      expect(finite.lastIndexOf(false)).toBe(127);
    }
  }
});
