/**
 * Attention against the machine's own limits: `node bench/kernels/attention.ts [isa] [threads]`. Counts only
 * the multiplications and additions of pairs that see each other, in the fastest of several runs, beside the
 * multiply-add peak measured around them.
 */
import { availableParallelism } from "node:os";
import { type DType, dtypeCode, viewOf } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

const addon = loadAddon();
const isa = (process.argv[2] ?? addon.detectedIsa()) as IsaName;
const threads = Number(process.argv[3] ?? availableParallelism());
const size = 64;

function tensor(dtype: DType, shape: number[], fill?: () => number): NativeTensor {
  const elements = shape.reduce((product, axis) => product * axis, 1);
  const data = viewOf(dtype, new ArrayBuffer(elements * (dtype === "bf16" ? 2 : 4)));
  const number = new Float32Array(1);
  const bits = new Uint32Array(number.buffer);
  if (fill !== undefined) {
    for (let i = 0; i < elements; i++) {
      number[0] = fill();
      data[i] = dtype === "bf16" ? bits[0]! >>> 16 : number[0]!;
    }
  }
  return { data, dtype: dtypeCode(dtype), shape };
}

function seconds(body: () => void): number {
  const started = performance.now();
  body();
  return (performance.now() - started) / 1000;
}

/** Floating-point operations a second of the multiply-add unit. */
function peakOf(dtype: DType): number {
  const work = tensor("f32", [1]);
  const attributes = [dtype === "bf16" ? 1 : 0, 1_000_000];
  const elapsed = seconds(() => addon.runKernel("measure_peak", isa, [], [work], attributes, threads));
  return (work.data as Float32Array)[0]! / elapsed;
}

function report(name: string, dtype: DType, operations: number, runs: number, body: () => void): void {
  body();
  let best = Infinity;
  let peak = peakOf(dtype);
  for (let run = 0; run < runs; run++) {
    best = Math.min(best, seconds(body));
    peak = Math.max(peak, peakOf(dtype));
  }
  const rate = operations / best;
  console.log(
    `${name.padEnd(52)} ${(best * 1e3).toFixed(2).padStart(9)} ms ${(rate / 1e9).toFixed(0).padStart(6)} GFLOP/s ` +
      `${((100 * rate) / peak).toFixed(0).padStart(3)}% of ${dtype} peak`,
  );
}

function train(dtype: "f32" | "bf16", sequences: number, length: number, heads: number, runs: number): void {
  const stream = new PhiloxStream(1);
  const noise = () => stream.nextUint32() / 2 ** 31 - 1;
  const shape = [sequences * length, heads, size];
  const q = tensor(dtype, shape, noise);
  const k = tensor(dtype, shape, noise);
  const v = tensor(dtype, shape, noise);
  const dOut = tensor(dtype, shape, noise);
  const out = tensor(dtype, shape);
  const gradients = [tensor(dtype, shape), tensor(dtype, shape), tensor(dtype, shape)];
  const logsumexp = tensor("f32", [heads, sequences * length]);
  const offsets: NativeTensor = {
    data: Int32Array.from({ length: sequences + 1 }, (_, i) => i * length),
    dtype: dtypeCode("i32"),
    shape: [sequences + 1],
  };
  const attributes = [1 / Math.sqrt(size), 1, 0];
  const product = sequences * length * (length + 1) * size * heads;
  const name = `${dtype} ${sequences} x ${length} tokens, ${heads} heads of ${size}`;
  const before = process.memoryUsage().rss;
  report(`${name}, forward`, dtype, 2 * product, runs, () => {
    addon.runKernel("attention", isa, [q, k, v, offsets], [out, logsumexp], attributes, threads);
  });
  report(`${name}, backward`, dtype, 5 * product, runs, () => {
    const inputs = [dOut, q, k, v, out, logsumexp, offsets];
    addon.runKernel("attention_gradient", isa, inputs, gradients, attributes, threads);
  });
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  console.log(`${"".padEnd(52)} resident memory grew by ${grown.toFixed(1)} MiB, results included`);
}

/** One query a sequence against a cache: bound by reading it. */
function decode(
  dtype: "f32" | "bf16",
  sequences: number,
  context: number,
  heads: number,
  groups: number,
): void {
  const blockSize = 16;
  const cacheShape = [sequences * context, groups, size];
  const keys = tensor(dtype, cacheShape, () => 0.5);
  const values = tensor(dtype, cacheShape, () => 0.5);
  const q = tensor(dtype, [sequences, heads, size], () => 0.25);
  const integers = (shape: number[], value: (i: number) => number): NativeTensor => ({
    data: Int32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => value(i)),
    dtype: dtypeCode("i32"),
    shape,
  });
  const blocks = context / blockSize;
  const inputs = [
    q,
    keys,
    values,
    integers([sequences + 1], (i) => i),
    integers([sequences], () => context),
    integers([sequences, blocks], (i) => (i * 7919) % (sequences * blocks)),
  ];
  const out = tensor(dtype, [sequences, heads, size]);
  const attributes = [1 / Math.sqrt(size), 0, blockSize];
  let best = Infinity;
  for (let run = 0; run < 8; run++) {
    best = Math.min(
      best,
      seconds(() => addon.runKernel("paged_attention", isa, inputs, [out], attributes, threads)),
    );
  }
  const bytes = keys.data!.byteLength + values.data!.byteLength;
  console.log(
    `${`${dtype} decode, ${sequences} x ${context} tokens, ${heads}/${groups} heads of ${size}`.padEnd(52)} ` +
      `${(best * 1e3).toFixed(2).padStart(9)} ms ${(bytes / best / 1e9).toFixed(1).padStart(6)} GB/s of cache`,
  );
}

console.log(`${isa}, ${threads} threads`);
for (const dtype of ["bf16", "f32"] as const) {
  train(dtype, 1, 2048, 8, 5);
  train(dtype, 8, 256, 8, 5);
  for (const length of [8192, 32768]) train(dtype, 1, length, 1, 1);
  decode(dtype, 1, 32768, 8, 8);
  decode(dtype, 16, 2048, 8, 2);
}
