/**
 * Attention over a paged cache as serving calls it: `node bench/kernels/paged_attention.ts [isa] [threads] [filter]`.
 * Every case is first compared with float64. Its time is the best of many passes over as many caches as memory,
 * not the processor, has to hold (as the layers of a model), beside the limits measured around it.
 */
import { availableParallelism } from "node:os";
import { bytesPerElement, decode } from "../../src/base/dtype.ts";
import { referenceRules } from "../../src/graph/rules/reference.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";
import { LimitMeter } from "../harness/limits.ts";
import { type HeldTensor, noise, relativeError, requireClose, zeros } from "../harness/tensors.ts";

const addon = loadAddon();
const isa = (process.argv[2] ?? addon.detectedIsa()) as IsaName;
const threads = Number(process.argv[3] ?? availableParallelism());
const filter = process.argv[4] ?? "";
const [heads, groups, size] = [16, 4, 64];
const scale = 1 / Math.sqrt(size);
/** More than the processor's caches hold. */
const heldBytes = Number(process.env.HELD ?? 128) * 2 ** 20;

type CacheDType = "f32" | "bf16" | "f16";

interface Case {
  readonly name: string;
  readonly q: "f32" | "bf16";
  readonly cache: CacheDType;
  /** Tokens in the cache and queries of each sequence. */
  readonly sequences: readonly (readonly [context: number, queries: number])[];
  readonly blockSize: number;
}

function integers(shape: readonly number[], values: readonly number[]): HeldTensor {
  const tensor = zeros("i32", shape);
  tensor.data.set(values);
  return tensor;
}

/** A cache [slots, groups, size] of small numbers. */
function makeCache(dtype: CacheDType, slots: number, seed: number): HeldTensor {
  const values = noise("f32", [slots, groups, size], seed);
  if (dtype === "f32") return values;
  const cache = zeros(dtype, values.shape);
  addon.runKernel("copy", isa, [values], [cache], [], threads);
  return cache;
}

/** The operands of a case's call, with as many caches as the case passes over. */
function operandsOf({ q, cache, sequences, blockSize }: Case) {
  const tables = sequences.map(([context]) => Math.ceil(context / blockSize));
  const width = Math.max(...tables);
  const blocks = tables.reduce((sum, count) => sum + count, 0);
  // Blocks lie scattered, as after hours of serving: a step through them that shares no factor with their number.
  let step = Math.floor(blocks * 0.618) | 1;
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  while (divisor(blocks, step) !== 1) step += 2;
  const table = integers([sequences.length, width], []);
  let used = 0;
  tables.forEach((count, sequence) => {
    for (let i = 0; i < count; i++) table.data[sequence * width + i] = (used++ * step) % blocks;
  });
  const offsets = [0];
  for (const [, queries] of sequences) offsets.push(offsets.at(-1)! + queries);
  const slots = blocks * blockSize;
  const bytes = 2 * slots * groups * size * bytesPerElement(cache);
  const copies = Math.max(1, Math.ceil(heldBytes / bytes));
  const keys = makeCache(cache, slots, 2);
  const values = makeCache(cache, slots, 3);
  const copy = (tensor: HeldTensor): HeldTensor => {
    const other = zeros(cache, tensor.shape);
    other.data.set(tensor.data);
    return other;
  };
  return {
    q: noise(q, [offsets.at(-1)!, heads, size], 1),
    caches: Array.from({ length: copies }, (_, i) =>
      i === 0 ? [keys, values] : [copy(keys), copy(values)],
    ) as [HeldTensor, HeldTensor][],
    offsets: integers([offsets.length], offsets),
    contexts: integers(
      [sequences.length],
      sequences.map(([context]) => context),
    ),
    table,
    out: zeros(q, [offsets.at(-1)!, heads, size]),
  };
}

type Operands = ReturnType<typeof operandsOf>;

/** The last rows of each sequence against float64. */
function check({ name, q, cache, sequences, blockSize }: Case, operands: Operands): void {
  const wide = ({ type, data, shape }: HeldTensor) => ({ shape, values: decode(type, data) });
  const all = [operands.q, ...operands.caches[0]!, operands.out].map(wide);
  const row = heads * size;
  const offsets = [0];
  const queries: number[] = [];
  const found: number[] = [];
  sequences.forEach(([, count], sequence) => {
    const rows = Math.min(count, 3);
    const end = operands.offsets.data[sequence + 1]! * row;
    queries.push(...all[0]!.values.subarray(end - rows * row, end));
    found.push(...all[3]!.values.subarray(end - rows * row, end));
    offsets.push(offsets.at(-1)! + rows);
  });
  const shape = [offsets.at(-1)!, heads, size];
  const [expected] = referenceRules.paged_attention(
    [
      { shape, values: Float64Array.from(queries) },
      all[1]!,
      all[2]!,
      { shape: [offsets.length], values: Float64Array.from(offsets) },
      wide(operands.contexts),
      wide(operands.table),
    ],
    { scale, window: 0, blockSize },
    [shape],
  );
  const longest = Math.max(...sequences.map(([context]) => context));
  const allowed = q === "bf16" ? 4e-3 : 1e-6 * Math.sqrt(longest);
  requireClose(`${name} over ${cache}`, relativeError(found, expected!), allowed);
}

function run(options: Case): void {
  const name = `${options.name}, q ${options.q}, cache ${options.cache}, blocks of ${options.blockSize}`;
  if (!name.includes(filter)) return;
  const operands = operandsOf(options);
  const { q, caches, offsets, contexts, table, out } = operands;
  const attributes = [scale, 0, options.blockSize];
  const calls = caches.map(([keys, values]) => [q, keys, values, offsets, contexts, table] as NativeTensor[]);
  const pass = (): number => {
    const started = performance.now();
    for (const inputs of calls) addon.runKernel("paged_attention", isa, inputs, [out], attributes, threads);
    return (performance.now() - started) / 1000 / calls.length;
  };
  pass();
  check(options, operands);
  const meter = new LimitMeter({ isa, threads } as ConstructorParameters<typeof LimitMeter>[0]);
  let best = Infinity;
  const end = performance.now() + 600;
  for (let turn = 0; turn < 5 || performance.now() < end; turn++) {
    if (turn % 4 === 0) meter.sample();
    best = Math.min(best, pass());
  }
  const bytes = options.sequences.reduce(
    (sum, [context]) => sum + 2 * context * groups * size * bytesPerElement(options.cache),
    0,
  );
  const flops = options.sequences.reduce(
    (sum, [context, queries]) => sum + 4 * heads * size * queries * (context - (queries - 1) / 2),
    0,
  );
  const { bandwidth, f32, bf16 } = meter.limits;
  const peak = options.q === "bf16" ? bf16 : f32;
  const share = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(0).padStart(3)}%`;
  console.log(
    `${name.padEnd(76)} ${(best * 1e6).toFixed(1).padStart(9)} us ` +
      `${(bytes / best / 1e9).toFixed(1).padStart(6)} GB/s ${share(bytes / best, bandwidth)} ` +
      `${(flops / best / 1e9).toFixed(0).padStart(5)} GFLOP/s ${share(flops / best, peak)}`,
  );
}

console.log(
  `${isa}, ${threads} threads, ${heads}/${groups} heads of ${size}; shares of memory bandwidth, of peak`,
);
const formats = [
  ["bf16", "bf16"],
  ["f32", "bf16"],
  ["f32", "f16"],
  ["f32", "f32"],
] as const;
for (const [q, cache] of formats) {
  for (const context of [512, 2048, 8192, 32768]) {
    run({ name: `one of ${context}`, q, cache, sequences: [[context, 1]], blockSize: 16 });
  }
  const many = Array.from({ length: 32 }, (_, i) => [200 + ((i * 157) % 401), 1] as const);
  run({ name: "32 of 200 to 600", q, cache, sequences: many, blockSize: 16 });
}
for (const blockSize of [1, 16, 64]) {
  run({ name: "one of 8192", q: "bf16", cache: "bf16", sequences: [[8192, 1]], blockSize });
}
for (const [q, cache] of formats) {
  const decodes = Array.from({ length: 31 }, (_, i) => [200 + ((i * 157) % 401), 1] as const);
  for (const [context, queries] of [
    [256, 256],
    [4096, 512],
  ] as const) {
    run({
      name: `${queries} of ${context} and 31 decodes`,
      q,
      cache,
      sequences: [...decodes.slice(0, 16), [context, queries], ...decodes.slice(16)],
      blockSize: 16,
    });
  }
}
