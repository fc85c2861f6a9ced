/**
 * Attention's speed: `node bench/kernels/attention.ts [isa] [tokens] [heads] [size]`. Counts only the
 * multiplications and additions of pairs that see each other.
 */
import { dtypeCode, viewOf } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

const addon = loadAddon();
const isa = (process.argv[2] ?? addon.detectedIsa()) as IsaName;
const [tokens = 2048, heads = 8, size = 64] = process.argv.slice(3).map(Number);

function tensor(dtype: "f32" | "bf16" | "i32", shape: number[], fill?: () => number): NativeTensor {
  const elements = shape.reduce((product, axis) => product * axis, 1);
  const data = viewOf(dtype, new ArrayBuffer(elements * (dtype === "bf16" ? 2 : 4)));
  const scratch = new Float32Array(1);
  const bits = new Uint32Array(scratch.buffer);
  if (fill !== undefined) {
    for (let i = 0; i < elements; i++) {
      scratch[0] = fill();
      data[i] = dtype === "bf16" ? bits[0]! >>> 16 : scratch[0];
    }
  }
  return { data, dtype: dtypeCode(dtype), shape };
}

/** The fastest of several runs, in seconds. */
function fastest(runs: number, body: () => void): number {
  let best = Infinity;
  for (let run = 0; run < runs; run++) {
    const started = performance.now();
    body();
    best = Math.min(best, performance.now() - started);
  }
  return best / 1000;
}

function measure(
  dtype: "f32" | "bf16",
  length: number,
  sequences: number,
  heads: number,
  threads: number,
  runs: number,
) {
  const stream = new PhiloxStream(1);
  const total = length * sequences;
  const noise = () => stream.nextUint32() / 2 ** 31 - 1;
  const shape = [total, heads, size];
  const [q, k, v, dOut] = [
    tensor(dtype, shape, noise),
    tensor(dtype, shape, noise),
    tensor(dtype, shape, noise),
    tensor(dtype, shape, noise),
  ];
  const out = tensor(dtype, shape);
  const logsumexp = tensor("f32", [heads, total]);
  let sequence = 0;
  const offsets = tensor("i32", [sequences + 1], () => sequence++ * length);
  const attributes = [1 / Math.sqrt(size), 1, 0];
  const forward = fastest(runs, () =>
    addon.runKernel("attention", isa, [q, k, v, offsets], [out, logsumexp], attributes, threads),
  );
  const gradients = [tensor(dtype, shape), tensor(dtype, shape), tensor(dtype, shape)];
  const backward = fastest(runs, () =>
    addon.runKernel(
      "attention_gradient",
      isa,
      [dOut, q, k, v, out, logsumexp, offsets],
      gradients,
      attributes,
      threads,
    ),
  );
  const pairs = (sequences * length * (length + 1)) / 2;
  const rate = (products: number, seconds: number) => (products * 2 * pairs * size * heads) / seconds / 1e9;
  console.log(
    `${dtype} ${isa} ${sequences} x ${length} tokens, ${heads} heads of ${size}, ${threads} threads: ` +
      `forward ${(forward * 1e3).toFixed(2)} ms ${rate(2, forward).toFixed(0)} GFLOP/s, ` +
      `backward ${(backward * 1e3).toFixed(2)} ms ${rate(5, backward).toFixed(0)} GFLOP/s`,
  );
}

for (const dtype of ["bf16", "f32"] as const) {
  measure(dtype, tokens, 1, heads, 1, 5);
  measure(dtype, tokens, 1, heads, 2, 5);
  measure(dtype, 256, 8, heads, 2, 5);
}
measure("bf16", tokens, 1, 1, 2, 5);
