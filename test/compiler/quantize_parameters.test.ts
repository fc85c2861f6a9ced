import { describe, expect, test } from "vitest";
import { encode, type TensorData } from "../../src/base/dtype.ts";
import {
  packedBytes,
  type QuantizedFormat,
  type QuantizedParameter,
} from "../../src/base/quantized_format.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { symbolic } from "../../src/base/shape.ts";
import { compileProgram } from "../../src/compiler/compile.ts";
import { joinProducts } from "../../src/compiler/passes/join_products.ts";
import { quantizeParameters } from "../../src/compiler/passes/quantize_parameters.ts";
import { add, cast, leaf, matmul, transpose, unary } from "../../src/graph/build.ts";
import { apply, buildGraph, type Graph, type Value } from "../../src/graph/graph.ts";
import { printGraph } from "../../src/graph/print.ts";
import { quantizedReferences } from "../../src/graph/rules/references/quantized.ts";
import { QuantizedPanels } from "../../src/graph/rules/references/quantized_panels.ts";
import { verifyGraph } from "../../src/graph/verify.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { createNullBackend } from "../../src/runtime/null/backend.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";

const int8: QuantizedFormat = { bits: 8, group: 32, minimum: false };
const int4: QuantizedFormat = { bits: 4, group: 32, minimum: true };
const column: QuantizedFormat = { bits: 8, group: 0, minimum: false };

const sizes: Record<string, readonly [number, number, QuantizedFormat]> = {
  q: [48, 64, int8],
  k: [16, 64, int8],
  v: [16, 64, int8],
  o: [64, 48, int4],
  head: [70, 64, column],
};
const quantized = new Map<string, QuantizedParameter>(
  Object.entries(sizes).map(([name, [rows, columns, format]]) => [name, { format, rows, columns }]),
);

const parameter = (name: string, shape: readonly number[]): Value => leaf(name, "parameter", shape, "f32");

/** Look-ups in a tied table, projections with biases, an activation, a residual and a loss. */
function model(): Graph {
  const tokens = symbolic("tokens", 8);
  const weight = (name: string): Value => parameter(name, sizes[name]!.slice(0, 2) as [number, number]);
  const table = weight("head");
  const x = apply("embedding", [table, leaf("ids", "input", [tokens], "i32")], { dtype: "f32" });
  const product = (input: Value, name: string): Value => matmul(input, weight(name), { transposeB: true });
  const [q, k, v] = ["q", "k", "v"].map((name, index) =>
    add(product(x, name), parameter(`bias${index}`, [sizes[name]![0]])),
  ) as [Value, Value, Value];
  const y = add(x, product(unary("silu", q), "o"));
  const losses = apply("linear_cross_entropy", [y, table, leaf("targets", "input", [tokens], "i32")], {});
  const outputs = { keys: k, values: v, y, losses };
  return buildGraph(
    "model",
    Object.entries(outputs).map(([name, value]) => ({ name, value })),
  );
}

/** Random packed weights and the other leaves. */
function bindings(): Record<string, TensorData> {
  const source = new PhiloxStream(1);
  const normal = (count: number, scale: number): Float64Array =>
    Float64Array.from({ length: count }, () => scale * source.nextNormal());
  const bound: Record<string, TensorData> = {};
  for (const [name, { format, rows, columns }] of quantized) {
    const matrix = { shape: [rows, columns], values: normal(rows * columns, 0.3) };
    const [packed] = quantizedReferences.quantize_matrix([matrix], { format }, []);
    bound[name] = Uint8Array.from(packed!);
  }
  for (const [index, name] of ["q", "k", "v"].entries()) {
    bound[`bias${index}`] = encode("f32", normal(sizes[name]![0], 1));
  }
  bound.ids = Int32Array.of(3, 69, 0, 3, 12);
  bound.targets = Int32Array.of(69, -1, 3, 12, 7);
  return bound;
}

const elements = { keys: 5 * 16, values: 5 * 16, y: 5 * 64, losses: 5 };

describe("quantizing parameters", () => {
  test("the program of a small model", () => {
    const { graph } = compileProgram(model(), { quantized });
    verifyGraph(graph);
    expect(graph.nodes.filter((node) => node.op === "matmul_quantized")).toHaveLength(4);
    const leaves = graph.nodes.flatMap((node) => (node.op === "leaf" ? [node.attributes] : []));
    for (const [name, { format, rows, columns }] of quantized) {
      expect(leaves.find((each) => each.name === name)).toMatchObject({
        dtype: "u8",
        shape: [packedBytes(format, rows, columns)],
      });
    }
    // Biases, the activation and the residual are in the products' epilogues: nothing elementwise is left.
    expect(graph.nodes.filter((node) => node.op === "map" || node.op === "elementwise")).toHaveLength(0);
    // x is quantized once for three products; k and v are one, while q has an activation of its own.
    expect(graph.nodes.filter((node) => node.op === "quantize_rows")).toHaveLength(3);
    const counts = graph.nodes.flatMap((node) =>
      node.op === "matmul_quantized" ? [node.attributes.weights.length] : [],
    );
    expect(counts.toSorted()).toEqual([1, 1, 1, 2]);
  });

  test("means the same to kernels and to the reference, which reads the same bytes", async () => {
    const runs = [createReferenceBackend(), createNativeBackend({ threads: 2 })].map(async (backend) => {
      const bound = bindings();
      for (const [name, count] of Object.entries(elements)) bound[name] = new Float32Array(count);
      await backend.compile(model(), { quantized }).run(bound, { tokens: 5 });
      return bound;
    });
    const [expected, actual] = await Promise.all(runs);
    for (const name of Object.keys(elements)) {
      const wanted = expected![name]!;
      const largest = Math.max(...Array.from(wanted, Math.abs));
      // Values of activations that lie next to the middle of two bytes may be rounded to either.
      (wanted as Float32Array).forEach((value, index) => {
        expect(Math.abs(actual![name]![index]! - value), name).toBeLessThan(5e-3 * largest);
      });
    }
  });

  test("is near what the weights in floats give", async () => {
    const backend = createReferenceBackend();
    const [packed, plain] = [bindings(), bindings()];
    for (const [name, parameters] of quantized) {
      const panels = new QuantizedPanels(parameters, plain[name]!);
      const rows = Array.from({ length: parameters.rows }, (_, row) => [...panels.row(row)]);
      plain[name] = Float32Array.from(rows.flat());
    }
    for (const bound of [packed, plain]) {
      for (const [name, count] of Object.entries(elements)) bound[name] = new Float32Array(count);
    }
    await backend.compile(model(), { quantized }).run(packed, { tokens: 5 });
    await backend.compile(model()).run(plain, { tokens: 5 });
    for (const name of Object.keys(elements)) {
      let [error, norm] = [0, 0];
      (plain[name] as Float32Array).forEach((value, index) => {
        error += (packed[name]![index]! - value) ** 2;
        norm += value ** 2;
      });
      // Rounding of activations to bytes alone.
      expect(Math.sqrt(error / norm), name).toBeLessThan(0.02);
    }
  });

  test("plans without running", () => {
    const { memory } = createNullBackend({ threads: 1 }).compile(model(), { quantized });
    expect(memory.prepared).toBe(0);
  });

  test("weights stored [inputs, outputs] are quantized as their transpose, also behind casts", () => {
    const x = leaf("x", "input", [3, 64], "bf16");
    const direct = matmul(x, cast(parameter("w", [64, 48]), "bf16"));
    const turned = matmul(x, transpose(parameter("w2", [48, 64]), [1, 0]));
    const map = new Map([
      ["w", { format: int8, rows: 48, columns: 64 }],
      ["w2", { format: int8, rows: 48, columns: 64 }],
    ]);
    const graph = buildGraph("transposed", [
      { name: "direct", value: direct },
      { name: "turned", value: turned },
    ]);
    expect(printGraph(joinProducts(quantizeParameters(graph, map)))).toMatchInlineSnapshot(`
      "graph transposed
      %0: bf16[3, 64] = leaf {name: "x", kind: input}
      %1: i8[3, 64], f32[3, 2], i32[3, 2] = quantize_rows(%0) {group: 32}
      %2: u8[4352] = leaf {name: "w", kind: parameter}
      %3: u8[4352] = leaf {name: "w2", kind: parameter}
      %4: bf16[3, 48], bf16[3, 48] = matmul_quantized(%1.0, %1.1, %1.2, %2, %3) {weights: [48 int8 in groups of 32, 48 int8 in groups of 32], inner: 64}
      output direct = %4.0
      output turned = %4.1"
    `);
  });

  test("refuses what cannot read packed weights, and shapes that do not fit", () => {
    const weight = parameter("w", [48, 64]);
    const map = (columns: number) => new Map([["w", { format: int8, rows: 48, columns }]]);
    const scaled = buildGraph("scaled", [{ name: "y", value: unary("exp", weight) }]);
    expect(() => quantizeParameters(scaled, map(64))).toThrow(
      /elementwise cannot read quantized parameter "w"/,
    );
    const kept = buildGraph("kept", [{ name: "y", value: weight }]);
    expect(() => quantizeParameters(kept, map(64))).toThrow(/cannot read quantized parameter "w"/);
    expect(() => quantizeParameters(scaled, map(32))).toThrow(
      /"w" does not fit[\s\S]*\[48, 64\][\s\S]*\[48, 32\]/,
    );
  });
});
