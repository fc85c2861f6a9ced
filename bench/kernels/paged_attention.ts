/**
 * Attention over a paged cache as serving calls it: `node bench/kernels/paged_attention.ts [isa] [threads] [filter]`.
 * Every case is first compared with float64. Its time is the best of many passes over as many caches as memory,
 * not the processor, has to hold (as the layers of a model), beside the limits measured around it.
 */
import { availableParallelism } from "node:os";
import { bytesPerElement, decode } from "../../src/base/dtype.ts";
import { referenceRules } from "../../src/graph/rules/reference.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import { LimitMeter } from "../harness/limits.ts";
import { type HeldTensor, noise, relativeError, requireClose, zeros } from "../harness/tensors.ts";

const addon = loadAddon();
const isa = (process.argv[2] ?? addon.detectedIsa()) as IsaName;
const threads = Number(process.argv[3] ?? availableParallelism());
const filter = process.argv[4] ?? "";
const [heads, groups, size] = [16, 4, 64];
const scale = 1 / Math.sqrt(size);
/** More than the processor's caches hold. */
const heldBytes = 128 * 2 ** 20;

type CacheDType = "f32" | "bf16" | "f16" | "i8";

interface Case {
  readonly name: string;
  readonly q: "f32" | "bf16";
  readonly cache: CacheDType;
  /** Tokens in the cache and queries of each sequence. */
  readonly sequences: readonly (readonly [context: number, queries: number])[];
  readonly blockSize: number;
  /** Pieces that a context is cut into; left out: what the kernel does by itself. */
  readonly splits?: number;
}

function integers(shape: readonly number[], values: readonly number[]): HeldTensor {
  const tensor = zeros("i32", shape);
  tensor.data.set(values);
  return tensor;
}

/** A cache [slots, groups, size] of small numbers, and its scales where it is quantized. */
function makeCache(dtype: CacheDType, slots: number, seed: number): HeldTensor[] {
  const values = noise("f32", [slots, groups, size], seed);
  if (dtype === "f32") return [values];
  const cache = zeros(dtype, values.shape);
  if (dtype !== "i8") {
    addon.runKernel("copy", isa, [values], [cache], [], threads);
    return [cache];
  }
  const scales = zeros("f32", [slots, groups]);
  const places = integers([slots], [...Array(slots).keys()]);
  const written = [cache, scales];
  addon.runKernel("cache_write_quantized", isa, [...written, values, places], written, [], threads);
  return written;
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
    const other = zeros(tensor.type, tensor.shape);
    other.data.set(tensor.data);
    return other;
  };
  return {
    q: noise(q, [offsets.at(-1)!, heads, size], 1),
    caches: Array.from({ length: copies }, (_, i) =>
      i === 0 ? { keys, values } : { keys: keys.map(copy), values: values.map(copy) },
    ),
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
  const { keys, values } = operands.caches[0]!;
  const all = [operands.q, keys[0]!, values[0]!, operands.out].map(wide);
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
      ...[...keys.slice(1), ...values.slice(1)].map(wide),
    ],
    { scale, window: 0, blockSize },
    [shape],
  );
  const longest = Math.max(...sequences.map(([context]) => context));
  const allowed = q === "bf16" ? 4e-3 : 1e-6 * Math.sqrt(longest);
  requireClose(`${name} over ${cache}`, relativeError(found, expected!), allowed);
}

/** What a case calls, over and over with other caches. */
function callsOf(options: Case, { q, caches, offsets, contexts, table, out }: Operands): (() => void)[] {
  const attributes = [scale, 0, options.blockSize, options.splits ?? 0];
  return caches.map(({ keys, values }) => {
    const inputs = [q, keys[0], values[0], offsets, contexts, table, keys[1], values[1]];
    const present = inputs.filter((input) => input !== undefined);
    return () => addon.runKernel("paged_attention", isa, present, [out], attributes, threads);
  });
}

/** Seconds of the fastest call of each contestant, who take turns for as many seconds as are given. */
function fastest(
  contestants: readonly (readonly (() => void)[])[],
  seconds: number,
  between: () => void,
): number[] {
  const best = contestants.map(() => Infinity);
  const end = performance.now() + seconds * 1000;
  for (let turn = 0; turn < 5 || performance.now() < end; turn++) {
    if (turn % 4 === 0) between();
    contestants.forEach((calls, index) => {
      for (const call of calls) {
        const started = performance.now();
        call();
        best[index] = Math.min(best[index]!, (performance.now() - started) / 1000);
      }
    });
  }
  return best;
}

const share = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(0).padStart(3)}%`;

function run(options: Case): void {
  const name = `${options.name}, q ${options.q}, cache ${options.cache}, blocks of ${options.blockSize}`;
  if (!name.includes(filter)) return;
  const operands = operandsOf(options);
  const calls = callsOf(options, operands);
  calls[0]!();
  check(options, operands);
  const meter = new LimitMeter({ isa, threads } as ConstructorParameters<typeof LimitMeter>[0]);
  const best = fastest([calls], 0.6, meter.sample)[0]!;
  const slotBytes = size * bytesPerElement(options.cache) + (options.cache === "i8" ? 4 : 0);
  const bytes = options.sequences.reduce((sum, [context]) => sum + 2 * context * groups * slotBytes, 0);
  const flops = options.sequences.reduce(
    (sum, [context, queries]) => sum + 4 * heads * size * queries * (context - (queries - 1) / 2),
    0,
  );
  const { bandwidth, f32, bf16 } = meter.limits;
  const peak = options.q === "bf16" ? bf16 : f32;
  console.log(
    `${name.padEnd(76)} ${(best * 1e6).toFixed(1).padStart(9)} us ` +
      `${(bytes / best / 1e9).toFixed(1).padStart(6)} GB/s ${share(bytes / best, bandwidth)} ` +
      `${(flops / best / 1e9).toFixed(0).padStart(5)} GFLOP/s ${share(flops / best, peak)}`,
  );
}

/**
 * Lean Attention's question (Sanovar et al., arXiv 2405.10480): equal shares of pieces, a unit for each sequence,
 * and as many pieces for each sequence as there are threads.
 */
function schedules(name: string, contexts: readonly number[]): void {
  if (!name.includes(filter)) return;
  const given = { name, q: "bf16", cache: "bf16", blockSize: 16 } as const;
  const sequences = contexts.map((context) => [context, 1] as const);
  const operands = operandsOf({ ...given, sequences });
  const ways = [0, 1, threads].map((splits) => {
    const options = { ...given, sequences, splits };
    const calls = callsOf(options, operands);
    calls[0]!();
    check(options, operands);
    return calls;
  });
  const [ours, whole, fixed] = fastest(ways, 1.5, () => undefined) as [number, number, number];
  console.log(
    `${name.padEnd(44)} shares ${(ours * 1e6).toFixed(1)} us; sequences whole ${(whole / ours).toFixed(2)}x, ` +
      `each in ${threads} pieces ${(fixed / ours).toFixed(2)}x`,
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
  ["f32", "i8"],
  ["bf16", "i8"],
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
schedules("schedules: one of 32768", [32768]);
schedules("schedules: 16384 beside 7 of 256", [16384, ...Array(7).fill(256)]);
schedules("schedules: 256 to 4096 by powers of 2", [256, 512, 1024, 2048, 4096]);
schedules("schedules: 8 of 1024", Array(8).fill(1024));
