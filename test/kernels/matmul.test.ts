import { describe, expect, it } from "vitest";
import { type DType, dtypeCode } from "../../src/base/dtype.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import { referenceMatmul } from "./matmul_reference.ts";
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

const isas = runnableIsas();

/** The bar of a product: float32 sums over `depth`, and one rounding to the output's dtype. */
function bound(depth: number, output: DType): number {
  const rounding = output === "bf16" ? 4e-3 : output === "f16" ? 5e-4 : 0;
  return 1e-6 * Math.sqrt(Math.max(depth, 1)) + rounding;
}

function matrix(dtype: DType, rows: number, columns: number, transposed: boolean, seed: number): TestTensor {
  return randomTensor(dtype, transposed ? [columns, rows] : [rows, columns], seed);
}

interface Case {
  readonly size: readonly [number, number, number];
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly types?: readonly [DType, DType, DType];
  readonly activation?: number;
  readonly bias?: DType;
  readonly residual?: DType;
  readonly accumulate?: boolean;
}

function check(isa: IsaName, one: Case): void {
  const [rows, columns, depth] = one.size;
  const [typeA, typeB, typeC] = one.types ?? ["f32", "f32", "f32"];
  const a = matrix(typeA, rows, depth, one.transposeA ?? false, 1);
  const b = matrix(typeB, depth, columns, one.transposeB ?? false, 2);
  const bias = one.bias ? randomTensor(one.bias, [columns], 3) : null;
  const residual = one.residual ? randomTensor(one.residual, [rows, columns], 4) : null;
  const c = one.accumulate ? randomTensor(typeC, [rows, columns], 5) : zeros(typeC, [rows, columns]);
  if (!one.accumulate) bytesOf(c).fill(0x7f);
  const before = one.accumulate ? valuesOf(c) : null;
  const expected = referenceMatmul(a, b, { ...one, bias, residual, before });
  const attributes = [one.transposeA, one.transposeB, one.activation, one.accumulate].map(Number);
  runKernel(
    "matmul",
    isa,
    [a, b, bias, residual],
    [c],
    attributes.map((x) => x || 0),
  );
  expect(relativeError(valuesOf(c), expected), `${isa} ${JSON.stringify(one)}`).toBeLessThanOrEqual(
    bound(depth, typeC),
  );
}

const awkward = [1, 2, 3, 7, 13, 31, 33, 63, 65, 100, 129];

describe.each(isas)("matmul on %s", (isa) => {
  it.each<[DType]>([["f32"], ["bf16"]])("multiplies every awkward size in %s, in all transposes", (dtype) => {
    for (const [i, rows] of awkward.entries()) {
      for (const [j, columns] of awkward.entries()) {
        const depth = awkward[(i * 5 + j * 3) % awkward.length]!;
        const transposeA = ((i + j) & 1) === 1;
        const transposeB = ((i + 2 * j) & 2) === 2;
        check(isa, { size: [rows, columns, depth], transposeA, transposeB, types: [dtype, dtype, "f32"] });
      }
    }
    for (const transposeA of [false, true]) {
      for (const transposeB of [false, true]) {
        for (const size of [
          [33, 65, 31],
          [129, 100, 1],
          [65, 33, 130],
        ] as const) {
          check(isa, { size, transposeA, transposeB, types: [dtype, dtype, dtype] });
        }
      }
    }
  });

  it("crosses block borders in rows, columns and depth", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      check(isa, { size: [530, 70, 37], types: [dtype, dtype, "f32"] });
      check(isa, { size: [20, 1100, 40], transposeB: true, types: [dtype, dtype, "f32"] });
      check(isa, { size: [37, 45, 1333], transposeA: true, types: [dtype, dtype, "f32"] });
      check(isa, { size: [37, 45, 1333], transposeB: true, types: [dtype, dtype, dtype] });
    }
  });

  it("takes and gives every mix of float types", () => {
    const types = ["f32", "bf16", "f16"] as const;
    for (const a of types) {
      for (const b of types) {
        for (const c of types) {
          for (const transpose of [false, true]) {
            check(isa, {
              size: [19, 45, 67],
              types: [a, b, c],
              transposeA: transpose,
              transposeB: transpose,
            });
          }
        }
      }
    }
  });

  it("applies bias, activation, residual and accumulation in this order", () => {
    for (let activation = 0; activation <= 4; activation++) {
      for (const bias of ["f32", "bf16"] as const) {
        check(isa, { size: [17, 37, 24], activation, bias, residual: "f32" });
        check(isa, { size: [17, 37, 24], activation, residual: "bf16", types: ["bf16", "bf16", "bf16"] });
        check(isa, { size: [17, 37, 600], activation, bias, types: ["bf16", "bf16", "f32"] });
        check(isa, { size: [9, 65, 30], activation, bias, accumulate: true, transposeA: true });
      }
    }
  });

  it("multiplies zero sizes: no elements, or zeros where the depth is empty", () => {
    for (const size of [
      [0, 5, 3],
      [5, 0, 3],
      [0, 0, 0],
    ] as const) {
      expect(() => check(isa, { size })).not.toThrow();
    }
    check(isa, { size: [5, 40, 0] });
    check(isa, { size: [5, 40, 0], bias: "f32", accumulate: true });
    check(isa, { size: [5, 40, 0], types: ["bf16", "bf16", "bf16"] });
  });

  it("multiplies batches, with a right operand of each or shared by all", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      for (const [transposeA, transposeB] of [
        [false, false],
        [true, true],
      ] as const) {
        const a = randomTensor(dtype, transposeA ? [2, 3, 21, 10] : [2, 3, 10, 21], 1);
        for (const shared of [false, true]) {
          const shapeB = transposeB ? [35, 21] : [21, 35];
          const b = randomTensor(dtype, shared ? shapeB : [2, 3, ...shapeB], 2);
          const residual = randomTensor("f32", [2, 3, 10, 35], 3);
          const c = zeros("f32", [2, 3, 10, 35]);
          const attributes = [transposeA, transposeB, 0, 0].map(Number);
          runKernel("matmul", isa, [a, b, null, residual], [c], attributes, 3);
          const expected = referenceMatmul(a, b, { transposeA, transposeB, residual });
          expect(relativeError(valuesOf(c), expected)).toBeLessThanOrEqual(bound(21, "f32"));
        }
      }
    }
  });

  it("carries NaN and infinity into the elements that they belong to, and no others", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      const a = randomTensor(dtype, [40, 70], 1);
      const b = randomTensor(dtype, [70, 50], 2);
      const special = tensorOf(dtype, [2], [Number.NaN, Number.POSITIVE_INFINITY]);
      a.data[3 * 70 + 5] = special.data[0]!;
      b.data[6 * 50 + 49] = special.data[1]!;
      const c = zeros("f32", [40, 50]);
      runKernel("matmul", isa, [a, b], [c], [0, 0, 0, 0]);
      valuesOf(c).forEach((value, index) => {
        const [row, column] = [Math.floor(index / 50), index % 50];
        if (row === 3) expect(value).toBeNaN();
        else if (column === 49) expect(Math.abs(value)).toBe(Number.POSITIVE_INFINITY);
        else expect(value).not.toSatisfy((x: number) => !Number.isFinite(x));
      });
    }
  });

  it("gives the same bits on 1, 2 and 3 threads, and to a row whatever the other rows", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      const a = randomTensor(dtype, [75, 700], 1);
      const b = randomTensor(dtype, [700, 210], 2);
      const results = [1, 2, 3].map((threads) => {
        const c = zeros("f32", [75, 210]);
        runKernel("matmul", isa, [a, b], [c], [0, 0, 0, 0], threads);
        return c;
      });
      expect(Buffer.compare(bytesOf(results[1]!), bytesOf(results[0]!))).toBe(0);
      expect(Buffer.compare(bytesOf(results[2]!), bytesOf(results[0]!))).toBe(0);
      const row = tensorOf(dtype, [1, 700], valuesOf(a).subarray(20 * 700, 21 * 700));
      const alone = zeros("f32", [1, 210]);
      runKernel("matmul", isa, [row, b], [alone], [0, 0, 0, 0]);
      expect(valuesOf(alone)).toEqual(valuesOf(results[0]!).subarray(20 * 210, 21 * 210));
    }
  });
});

/** Bytes of b [depth, columns] packed (docs/kernels.md). */
function packedBytes(packed: DType, depth: number, columns: number): number {
  const panels = Math.ceil(columns / 32);
  return packed === "bf16" ? panels * Math.ceil(depth / 32) * 32 * 64 : panels * depth * 128;
}

/** b [depth, columns] (or transposed) as docs/kernels.md packs it. */
function panelsOf(b: TestTensor, transposed: boolean, packed: "f32" | "bf16"): Uint8Array {
  const values = valuesOf(b);
  const [depth, columns] = (transposed ? b.shape.toReversed() : b.shape) as [number, number];
  const at = (k: number, n: number) => values[transposed ? n * depth + k : k * columns + n]!;
  const held = packed === "bf16" ? Math.ceil(depth / 32) * 32 : depth;
  const layout = new Float64Array(Math.ceil(columns / 32) * 32 * held);
  let next = 0;
  for (let panel = 0; panel < columns; panel += 32) {
    for (let k = 0; k < held; k += packed === "bf16" ? 2 : 1) {
      for (let n = panel; n < panel + 32; n++) {
        for (const kk of packed === "bf16" ? [k, k + 1] : [k]) {
          layout[next++] = kk < depth && n < columns ? at(kk, n) : 0;
        }
      }
    }
  }
  return bytesOf(tensorOf(packed, [layout.length], layout));
}

describe.each(isas)("packed matmul on %s", (isa) => {
  it("packs panels of 32 columns, pairs along K adjacent in bf16, zeros beside", () => {
    for (const transposed of [false, true]) {
      for (const [depth, columns] of [
        [5, 3],
        [33, 70],
        [64, 32],
        [1, 65],
      ] as const) {
        for (const from of ["f32", "bf16", "f16"] as const) {
          const b = matrix(from, depth, columns, transposed, 7);
          for (const packed of ["f32", "bf16"] as const) {
            const bytes = zeros("u8", [packedBytes(packed, depth, columns)]);
            bytesOf(bytes).fill(0xff);
            runKernel("pack_matrix", isa, [b], [bytes], [Number(transposed), dtypeCode(packed)]);
            expect(bytesOf(bytes)).toEqual(panelsOf(b, transposed, packed));
          }
        }
      }
    }
  });

  it("packs what is larger than a cache into memory of whole cache lines", () => {
    const [depth, columns] = [530, 1037];
    for (const transposed of [false, true]) {
      const b = matrix("f32", depth, columns, transposed, 8);
      for (const packed of ["f32", "bf16"] as const) {
        const expected = panelsOf(b, transposed, packed);
        for (const threads of [1, 2, 3]) {
          const data = new Uint8Array(loadAddon().allocate(expected.length)).fill(0xff);
          const bytes: TestTensor = { dtype: "u8", shape: [data.length], data };
          runKernel("pack_matrix", isa, [b], [bytes], [Number(transposed), dtypeCode(packed)], threads);
          expect(Buffer.compare(data, expected), `${packed}, ${threads} threads`).toBe(0);
        }
      }
    }
  });

  it("multiplies by packed weights, with every epilogue", () => {
    for (const [rows, columns, depth] of [
      [1, 100, 65],
      [3, 33, 1],
      [8, 1100, 70],
      [45, 64, 600],
      [0, 4, 4],
    ]) {
      for (const type of ["f32", "bf16", "f16"] as const) {
        for (const packed of ["f32", "bf16"] as const) {
          const a = randomTensor(type, [rows!, depth!], 1);
          const b = randomTensor(packed, [columns!, depth!], 2);
          const bias = randomTensor("f32", [columns!], 3);
          const residual = randomTensor("bf16", [rows!, columns!], 4);
          const bytes = zeros("u8", [packedBytes(packed, depth!, columns!)]);
          runKernel("pack_matrix", isa, [b], [bytes], [1, dtypeCode(packed)]);
          const c = randomTensor("f32", [rows!, columns!], 5);
          const before = valuesOf(c);
          const sizes = [depth!, columns!, dtypeCode(packed)];
          runKernel("matmul_packed", isa, [a, bytes, bias, residual], [c], [...sizes, 4, 1]);
          const options = { transposeB: true, activation: 4, bias, residual, before, bf16: false };
          expect(relativeError(valuesOf(c), referenceMatmul(a, b, options))).toBeLessThanOrEqual(
            bound(depth!, "f32"),
          );
        }
      }
    }
  });
});

describe.each(variantsOf("matmul"))("matmul on %s against its scalar twin", (isa) => {
  it("agrees within the bar", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      const a = randomTensor(dtype, [150, 520], 1);
      const b = randomTensor(dtype, [520, 170], 2);
      const [fast, scalar] = ([isa, "scalar"] as const).map((which) => {
        const c = zeros("f32", [150, 170]);
        expect(runKernel("matmul", which, [a, b], [c], [0, 0, 0, 0])).toBe(which);
        return valuesOf(c);
      });
      expect(relativeError(fast!, scalar!)).toBeLessThanOrEqual(bound(520, "f32"));
    }
  });
});
