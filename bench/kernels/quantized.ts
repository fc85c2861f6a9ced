/**
 * Quantized products against the machine's own limits: `node bench/kernels/quantized.ts [formats] [rows]`, such as
 * `q8_0,q4_0 1,8,32,512`. The weights are those of a Llama of 16 layers of size 1024, so that every run streams
 * them from memory as a step of generation does; attention and norms are left out. Every program's results are
 * checked against float64 first. Each line is the best of several runs.
 */
import { availableParallelism } from "node:os";
import { type DType, dtypeCode, toF16Bits } from "../../src/base/dtype.ts";
import {
  type BlockType,
  blockBytes,
  blockLayout,
  formatOfBlocks,
  packedBytes,
  type QuantizedFormat,
  type QuantizedParameter,
} from "../../src/base/quantized_format.ts";
import { leaf, matmul } from "../../src/graph/build.ts";
import { apply, buildGraph, createNode, type Graph, type Value } from "../../src/graph/graph.ts";
import { QuantizedPanels } from "../../src/graph/rules/references/quantized_panels.ts";
import { loadAddon } from "../../src/runtime/native/addon.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";

const addon = loadAddon();
const backend = createNativeBackend({ threads: availableParallelism() });
const types = (process.argv[2] ?? "q8_0,q4_0").split(",") as BlockType[];
const rowCounts = (process.argv[3] ?? "1,8,32,512").split(",").map(Number);

const [size, layers, groups, intermediate, vocabulary] = [1024, 16, 256, 2816, 32000];
const dtype: DType = "f32";

/** Output and inner sizes of the matrices of a layer, by name. */
const matrices: Record<string, readonly [number, number]> = {
  q: [size, size],
  k: [groups, size],
  v: [groups, size],
  o: [size, size],
  gate: [intermediate, size],
  up: [intermediate, size],
  down: [size, intermediate],
};

/** The products of a step: x [rows, size] through all layers to logits. */
function stepGraph(rows: number): Graph {
  const weight = (name: string, shape: readonly number[]): Value => leaf(name, "parameter", shape, dtype);
  const product = (x: Value, name: string, shape: readonly [number, number], to: DType = dtype): Value =>
    matmul(x, weight(name, shape), { transposeB: true, dtype: to });
  let x: Value = leaf("x", "input", [rows, size], dtype);
  const kept: Value[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const times = (input: Value, name: string) => product(input, `${name}${layer}`, matrices[name]!);
    const q = times(x, "q");
    kept.push(times(x, "k"), times(x, "v"));
    const o = times(q, "o");
    x = times(apply("swiglu", [times(o, "gate"), times(o, "up")], {}), "down");
  }
  const logits = product(x, "head", [vocabulary, size], "f32");
  const outputs = kept.map((value, index) => ({ name: `kept${index}`, value }));
  return buildGraph("products of a step", [{ name: "logits", value: logits }, ...outputs]);
}

/** Blocks of pseudorandom bytes whose scales keep activations about as large as they were. */
function randomBlocks(type: BlockType, rows: number, columns: number): Uint8Array {
  const bytes = new Uint8Array(addon.allocate(blockBytes(type, rows, columns)));
  const words = new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state ^ (state >>> 13);
  }
  const scale = toF16Bits(1 / (Math.sqrt(columns) * (formatOfBlocks(type).bits === 8 ? 74 : 4.6)));
  for (let start = 0; start < bytes.length; start += blockLayout(type).bytes) {
    const place = start + (type === "q6_k" ? 208 : 0);
    bytes[place] = scale & 255;
    bytes[place + 1] = scale >> 8;
    if (type === "q4_k" || type === "q5_k") bytes.copyWithin(start + 2, start, start + 2);
  }
  return bytes;
}

function best(run: () => number, budget: number): number {
  run();
  let least = Number.POSITIVE_INFINITY;
  const end = performance.now() + budget * 1000;
  for (let runs = 0; runs < 5 || performance.now() < end; runs++) least = Math.min(least, run());
  return least;
}

function timed(work: () => void): () => number {
  return () => {
    const started = performance.now();
    work();
    return (performance.now() - started) / 1000;
  };
}

function measureBandwidth(): number {
  const bytes = 256 * 2 ** 20;
  const data = new Uint8Array(addon.allocate(bytes)).fill(1);
  const sums = { data: new Float32Array(backend.threads), dtype: dtypeCode("f32"), shape: [backend.threads] };
  const input = { data, dtype: dtypeCode("u8"), shape: [bytes] };
  const run = () => addon.runKernel("measure_bandwidth", backend.isa, [input], [sums], [], backend.threads);
  return bytes / best(timed(run), 0.5);
}

function measureBytePeak(): number {
  const operations = { data: new Float32Array(1), dtype: dtypeCode("f32"), shape: [1] };
  const run = () =>
    addon.runKernel("measure_byte_peak", backend.isa, [], [operations], [2_000_000], backend.threads);
  const seconds = best(timed(run), 0.3);
  return operations.data[0]! / seconds;
}

/** Holds one product of 3 rows against float64 arithmetic on the same bytes. */
async function check(
  format: QuantizedFormat,
  packed: Uint8Array,
  columns: number,
  inner: number,
): Promise<void> {
  const x = leaf("x", "input", [3, inner], "f32");
  const bytes = createNode("quantize_rows", [x], { group: format.group });
  const rowBytes = bytes.outputs.map((_, index) => ({ node: bytes, index }));
  const weight = leaf("weight", "input", [packed.length], "u8");
  const attributes = {
    weights: [{ format, columns }],
    inner,
    activation: "none",
    bias: false,
    residual: false,
  } as const;
  const y = apply("matmul_quantized", [...rowBytes, weight], { ...attributes, dtype: "f32" });
  const values = Float32Array.from({ length: 3 * inner }, (_, i) => Math.sin(i * 1.7));
  const bound = { x: values, weight: packed, y: new Float32Array(3 * columns) };
  const quantized = {
    values: new Int8Array(values.length),
    scales: new Float32Array((3 * inner) / format.group),
  };
  const outputs = [
    { name: "y", value: y },
    { name: "values", value: rowBytes[0]! },
    { name: "scales", value: rowBytes[1]! },
  ];
  await backend.compile(buildGraph("check", outputs)).run({ ...bound, ...quantized });
  const panels = new QuantizedPanels({ format, rows: columns, columns: inner }, packed);
  for (let column = 0; column < columns; column += 97) {
    const weights = panels.row(column);
    for (let row = 0; row < 3; row++) {
      let [expected, magnitude] = [0, 0];
      weights.forEach((w, k) => {
        const at = row * inner + k;
        const term = w * quantized.values[at]! * quantized.scales[Math.floor(at / format.group)]!;
        expected += term;
        magnitude += Math.abs(term);
      });
      const error = Math.abs(bound.y[row * columns + column]! - expected);
      if (!(error <= 1e-6 * magnitude)) throw new Error(`column ${column} of row ${row} is off by ${error}`);
    }
  }
}

console.log(`${backend.isa}, ${backend.threads} threads`);
for (const type of types) {
  const format = formatOfBlocks(type);
  const quantized = new Map<string, QuantizedParameter>();
  const weights: Record<string, Uint8Array> = {};
  let seconds = 0;
  let total = 0;
  const add = (name: string, rows: number, columns: number): void => {
    const blocks = randomBlocks(type, rows, columns);
    const packed = new Uint8Array(addon.allocate(packedBytes(format, rows, columns)));
    const code = ["q8_0", "q4_0", "q4_k", "q5_k", "q6_k"].indexOf(type);
    const input = { data: blocks, dtype: dtypeCode("u8"), shape: [blocks.length] };
    const output = { data: packed, dtype: dtypeCode("u8"), shape: [packed.length] };
    const run = () =>
      addon.runKernel(
        "repack_blocks",
        backend.isa,
        [input],
        [output],
        [code, rows, columns],
        backend.threads,
      );
    seconds += timed(run)();
    weights[name] = packed;
    total += packed.length;
    quantized.set(name, { format, rows, columns });
  };
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, [rows, columns]] of Object.entries(matrices)) add(`${name}${layer}`, rows, columns);
  }
  add("head", vocabulary, size);
  const [bandwidth, peak] = [measureBandwidth(), measureBytePeak()];
  console.log(
    `${type}: ${(total / 1e6).toFixed(0)} MB packed at ${(total / seconds / 1e9).toFixed(2)} GB/s; memory ` +
      `${(bandwidth / 1e9).toFixed(1)} GB/s, byte products ${(peak / 1e9).toFixed(0)} GOP/s`,
  );
  await check(format, weights.o0!, size, size);
  for (const rows of rowCounts) {
    const executable = backend.compile(stepGraph(rows), { quantized });
    const bindings: Record<string, Uint8Array | Float32Array> = { ...weights };
    bindings.x = Float32Array.from({ length: rows * size }, (_, i) => Math.sin(i));
    bindings.logits = new Float32Array(rows * vocabulary);
    for (let i = 0; i < 2 * layers; i++) bindings[`kept${i}`] = new Float32Array(rows * groups);
    let [whole, kernels] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    const end = performance.now() + 1500;
    for (let runs = 0; runs < 4 || performance.now() < end; runs++) {
      const statistics = await executable.run(bindings);
      whole = Math.min(whole, statistics.seconds);
      kernels = Math.min(kernels, statistics.kernelSeconds);
    }
    let operations = 2 * rows * size * vocabulary;
    for (const [count, inner] of Object.values(matrices)) operations += 2 * rows * layers * count * inner;
    const [rate, speed] = [total / whole, operations / whole];
    console.log(
      `  ${String(rows).padStart(4)} rows: ${(whole * 1e3).toFixed(2).padStart(8)} ms ` +
        `(${(kernels * 1e3).toFixed(2)} in kernels)  ${(rate / 1e9).toFixed(1).padStart(5)} GB/s ` +
        `${((100 * rate) / bandwidth).toFixed(0).padStart(3)}% of bandwidth  ` +
        `${(speed / 1e9).toFixed(0).padStart(4)} GOP/s ${((100 * speed) / peak).toFixed(0).padStart(3)}% of peak`,
    );
    executable.dispose();
  }
}
