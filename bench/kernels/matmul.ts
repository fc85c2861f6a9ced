/**
 * Matrix products against the machine's own limits: `node bench/kernels/matmul.ts [isa] [threads] [filter]`.
 * Each line is the median of several runs, beside the multiply-add peak measured just before it.
 */
import { availableParallelism } from "node:os";
import { type DType, dtypeCode, viewOf } from "../../src/base/dtype.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

const addon = loadAddon();
const isa = (process.argv[2] ?? addon.detectedIsa()) as IsaName;
const threads = Number(process.argv[3] ?? availableParallelism());
const filter = process.argv[4] ?? "";

function tensor(dtype: DType, ...shape: number[]): NativeTensor {
  const elements = shape.reduce((product, size) => product * size, 1);
  const bytes = elements * (dtype === "f32" ? 4 : dtype === "bf16" ? 2 : 1);
  const data = viewOf(dtype, new ArrayBuffer(bytes));
  // Small numbers whose high bytes are valid in every float type.
  if (dtype === "f32") for (let i = 0; i < elements; i++) data[i] = ((i * 2654435761) % 1024) / 1024 - 0.5;
  else if (dtype === "bf16") for (let i = 0; i < elements; i++) data[i] = 0x3e00 + ((i * 2654435761) % 256);
  return { data, dtype: dtypeCode(dtype), shape };
}

/** Median seconds of `run`: at least 3 runs and about `budget` seconds. */
function median(run: () => void, budget = 0.4): number {
  run();
  const times: number[] = [];
  const end = performance.now() + budget * 1000;
  while (times.length < 3 || performance.now() < end) {
    const start = performance.now();
    run();
    times.push((performance.now() - start) / 1000);
  }
  return times.toSorted((a, b) => a - b)[times.length >> 1]!;
}

/** Operations a second of the multiply-add unit: kind 0 float32, 1 bf16. */
function peak(kind: number): number {
  const work = tensor("f32", 1);
  const seconds = median(
    () => addon.runKernel("measure_peak", isa, [], [work], [kind, 2_000_000], threads),
    0.1,
  );
  return (work.data as Float32Array)[0]! / seconds;
}

function report(name: string, operations: number, kind: number, run: () => void): void {
  if (!name.includes(filter)) return;
  const limit = peak(kind);
  const rate = operations / median(run);
  const share = ((100 * rate) / limit).toFixed(0);
  console.log(
    `${name.padEnd(54)} ${(rate / 1e9).toFixed(1).padStart(8)} GFLOP/s  ${share.padStart(4)}% of peak`,
  );
}

function dense(
  dtype: DType,
  m: number,
  n: number,
  k: number,
  transposeA: boolean,
  transposeB: boolean,
): void {
  const name = `${dtype} ${m}x${n}x${k} ${transposeA ? "a^T" : "a"} ${transposeB ? "b^T" : "b"}`;
  if (!name.includes(filter)) return;
  const a = transposeA ? tensor(dtype, k, m) : tensor(dtype, m, k);
  const b = transposeB ? tensor(dtype, n, k) : tensor(dtype, k, n);
  const c = tensor(dtype, m, n);
  const attributes = [Number(transposeA), Number(transposeB), 0, 0];
  report(name, 2 * m * n * k, dtype === "f32" ? 0 : 1, () => {
    addon.runKernel("matmul", isa, [a, b], [c], attributes, threads);
  });
}

/** Few rows against packed weights: bound by reading the weights. */
function decode(dtype: DType, m: number, n: number, k: number, limit: number): void {
  const name = `${dtype} decode ${m}x${n}x${k}`;
  if (!name.includes(filter)) return;
  const a = tensor(dtype, m, k);
  const bytes = (Math.ceil(n / 32) * 32 * Math.ceil(k / 32) * 32 * (dtype === "f32" ? 4 : 2)) | 0;
  const packed = tensor("u8", bytes);
  addon.runKernel("pack_matrix", isa, [tensor(dtype, n, k)], [packed], [1, dtypeCode(dtype)], threads);
  const c = tensor("f32", m, n);
  const run = () =>
    addon.runKernel("matmul_packed", isa, [a, packed], [c], [k, n, dtypeCode(dtype), 0, 0], threads);
  const rate = bytes / median(run);
  const share = ((100 * rate) / limit).toFixed(0);
  console.log(
    `${name.padEnd(54)} ${(rate / 1e9).toFixed(1).padStart(8)} GB/s     ${share.padStart(4)}% of bandwidth`,
  );
}

/** The loss and the gradients of a linear layer with cross-entropy: three products, a fourth where V > 65536. */
function crossEntropy(dtype: DType, tokens: number, depth: number, vocabulary: number): void {
  const name = `${dtype} linear cross-entropy ${tokens}x${depth}x${vocabulary}`;
  if (!`${name}, gradient, losses`.includes(filter)) return;
  const hidden = tensor(dtype, tokens, depth);
  const weight = tensor(dtype, vocabulary, depth);
  const targets = { data: new Int32Array(tokens), dtype: dtypeCode("i32"), shape: [tokens] };
  const losses = tensor("f32", tokens);
  const inputs = [tensor("f32", tokens), hidden, weight, targets];
  const outputs = [losses, tensor(dtype, tokens, depth), tensor("f32", vocabulary, depth)];
  const kind = dtype === "f32" ? 0 : 1;
  const products = vocabulary > 65536 ? 4 : 3;
  report(`${name}, gradient`, 2 * products * tokens * depth * vocabulary, kind, () => {
    addon.runKernel("linear_cross_entropy_gradient", isa, inputs, outputs, [0], threads);
  });
  report(`${name}, losses`, 2 * tokens * depth * vocabulary, kind, () => {
    addon.runKernel("linear_cross_entropy", isa, inputs.slice(1), [losses], [], threads);
  });
}

console.log(
  `${isa}, ${threads} threads: f32 ${(peak(0) / 1e9).toFixed(0)} GFLOP/s, bf16 ${(peak(1) / 1e9).toFixed(0)} GFLOP/s`,
);
for (const dtype of ["f32", "bf16"] as const) {
  for (const size of [1024, 2048, 4096]) dense(dtype, size, size, size, false, false);
  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      dense(dtype, 2048, 1408, 512, transposeA, transposeB);
      dense(dtype, 2048, 512, 1408, transposeA, transposeB);
    }
  }
  dense(dtype, 2048, 4096, 512, false, true);
  dense(dtype, 512, 512, 2048, true, false);
  crossEntropy(dtype, 2048, 512, 8192);
}
if ("decode".includes(filter) || filter.includes("decode")) {
  const buffer = tensor("u8", 256 * 2 ** 20);
  (buffer.data as Uint8Array).fill(1);
  const sums = tensor("f32", threads);
  const seconds = median(() => addon.runKernel("measure_bandwidth", isa, [buffer], [sums], [], threads));
  const bandwidth = (256 * 2 ** 20) / seconds;
  console.log(`memory: ${(bandwidth / 1e9).toFixed(1)} GB/s`);
  for (const dtype of ["f32", "bf16"] as const) {
    for (const m of [1, 2, 4, 8]) decode(dtype, m, 8192, 4096, bandwidth);
  }
}
