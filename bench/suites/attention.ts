/**
 * Causal attention over 2048 tokens with 8 heads of 64, counting only pairs that see each other: against the
 * machine's peak, against matmul, softmax, matmul of our own ops, and against PyTorch's. Then memory and time
 * from 2048 to 32768 tokens.
 */
import type { TensorData } from "../../src/base/dtype.ts";
import { type Bar, bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import { visiblePairs } from "../../src/graph/rules/costs/attention.ts";
import type { Executable } from "../../src/runtime/backend.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";
import type { LengthResult } from "../children/attention_length.ts";
import {
  type AttentionShape,
  unfusedBackwardGraph,
  unfusedForwardGraph,
} from "../harness/attention_programs.ts";
import { headOf, referenceHead } from "../harness/attention_reference.ts";
import { runChild } from "../harness/child.ts";
import {
  type Comparison,
  type Contestant,
  interleave,
  timeEach,
  timeEachAsync,
} from "../harness/interleave.ts";
import { LimitMeter, type Limits, limitFigures, peakName } from "../harness/limits.ts";
import { type Peers, withPeers } from "../harness/peers.ts";
import {
  type FloatDType,
  type HeldTensor,
  noise,
  relativeError,
  requireClose,
  zeros,
} from "../harness/tensors.ts";

/**
 * The bars of issue 2: shares of the bf16 peak, and the speed against the unfused way; memory is linear where a
 * token of a sequence that is eight times as long takes as much, give or take what else a process does.
 */
const bars = { forward: 0.2, backward: 0.15, unfused: 3, linear: 1.25 } as const;

/** Products of the scores' size: two forward; backward the scores again and four gradients. */
const products = { forward: 2, backward: 5 } as const;
type Direction = keyof typeof products;
const directions: readonly Direction[] = ["forward", "backward"];

/** How far results may be from float64 on the same inputs; chained bf16 roundings of the unfused way add up. */
const allowed = {
  f32: { fused: 1e-5, unfused: 1e-5 },
  bf16: { fused: 6e-3, unfused: 2e-2 },
} as const;

/** Every operand and result, `[tokens, heads, size]`. */
interface Memory {
  readonly q: HeldTensor;
  readonly k: HeldTensor;
  readonly v: HeldTensor;
  readonly dOut: HeldTensor;
  readonly out: HeldTensor;
  readonly logsumexp: HeldTensor;
  readonly dQ: HeldTensor;
  readonly dK: HeldTensor;
  readonly dV: HeldTensor;
}

function makeMemory({ dtype, tokens, heads, size }: AttentionShape): Memory {
  const shape = [tokens, heads, size];
  return {
    q: noise(dtype, shape, 1),
    k: noise(dtype, shape, 2),
    v: noise(dtype, shape, 3),
    dOut: noise(dtype, shape, 4),
    out: zeros(dtype, shape),
    logsumexp: zeros("f32", [heads, tokens]),
    dQ: zeros(dtype, shape),
    dK: zeros(dtype, shape),
    dV: zeros(dtype, shape),
  };
}

/** The fused kernels, by direction. */
function fusedKernels(
  { machine }: SuiteContext,
  { tokens, size }: AttentionShape,
  memory: Memory,
): Record<Direction, () => void> {
  const { q, k, v, dOut, out, logsumexp, dQ, dK, dV } = memory;
  const offsets: NativeTensor = { ...zeros("i32", [2]), data: Int32Array.of(0, tokens) };
  const attributes = [1 / Math.sqrt(size), 1, 0];
  const call = (name: string, inputs: NativeTensor[], outputs: NativeTensor[]) => (): void => {
    loadAddon().runKernel(name, machine.isa as IsaName, inputs, outputs, attributes, machine.threads);
  };
  return {
    forward: call("attention", [q, k, v, offsets], [out, logsumexp]),
    backward: call("attention_gradient", [dOut, q, k, v, out, logsumexp, offsets], [dQ, dK, dV]),
  };
}

/** `[tokens, heads, size]` with heads first. */
function headsFirst(tensor: HeldTensor): TensorData {
  const [tokens, heads, size] = tensor.shape as [number, number, number];
  const result = zeros(tensor.type, tensor.shape).data;
  for (let token = 0; token < tokens; token++) {
    for (let head = 0; head < heads; head++) {
      const from = (token * heads + head) * size;
      result.set(tensor.data.subarray(from, from + size), (head * tokens + token) * size);
    }
  }
  return result;
}

/** The unfused way on the same operands. */
interface Unfused {
  readonly run: Record<Direction, () => Promise<unknown>>;
  /** `[heads, tokens, size]` */
  readonly results: Readonly<Record<"out" | "d_q" | "d_k" | "d_v", TensorData>>;
  readonly dispose: () => void;
}

function unfusedPrograms(context: SuiteContext, shape: AttentionShape, memory: Memory): Unfused {
  const { dtype, tokens, heads } = shape;
  const minusInfinity = dtype === "bf16" ? 0xff80 : Number.NEGATIVE_INFINITY;
  const mask = zeros(dtype, [tokens, tokens]).data;
  for (let row = 0; row < tokens; row++) mask.fill(minusInfinity, row * tokens + row + 1, (row + 1) * tokens);
  const empty = () => zeros(dtype, memory.q.shape).data;
  const results = { out: empty(), d_q: empty(), d_k: empty(), d_v: empty() };
  const bindings = {
    ...results,
    q: headsFirst(memory.q),
    k: headsFirst(memory.k),
    v: headsFirst(memory.v),
    d_out: headsFirst(memory.dOut),
    mask,
    probabilities: zeros(dtype, [heads, tokens, tokens]).data,
  };
  const programs: Record<Direction, Executable> = {
    forward: context.backend.compile(unfusedForwardGraph(shape)),
    backward: context.backend.compile(unfusedBackwardGraph(shape)),
  };
  return {
    run: {
      forward: () => programs.forward.run(bindings),
      backward: () => programs.backward.run(bindings),
    },
    results,
    dispose: () => {
      for (const direction of directions) programs[direction].dispose();
    },
  };
}

/** Holds one head of both ways against float64. @throws where either is wrong. */
function check({ dtype, tokens, size }: AttentionShape, memory: Memory, unfused: Unfused): void {
  const head = 3;
  const exact = referenceHead(memory, head);
  const shape = [tokens, 1, size];
  const ofUnfused = (data: TensorData): Float64Array => {
    const part = data.subarray(head * tokens * size, (head + 1) * tokens * size);
    return headOf({ data: part, dtype: memory.q.dtype, type: dtype, shape }, 0);
  };
  const { results } = unfused;
  const { fused: fusedBound, unfused: unfusedBound } = allowed[dtype];
  for (const [name, expected, fused, other] of [
    ["output", exact.out, memory.out, results.out],
    ["gradient of q", exact.dQ, memory.dQ, results.d_q],
    ["gradient of k", exact.dK, memory.dK, results.d_k],
    ["gradient of v", exact.dV, memory.dV, results.d_v],
  ] as const) {
    requireClose(`attention's ${name}`, relativeError(headOf(fused, head), expected), fusedBound);
    requireClose(`unfused attention's ${name}`, relativeError(ofUnfused(other), expected), unfusedBound);
  }
}

/** PyTorch's unfused attention; of a request for the backward pass, the seconds are that pass's alone. */
function torchContestant(
  context: SuiteContext,
  { dtype, tokens, heads, size }: AttentionShape,
  { torch }: Peers,
  direction: Direction,
): Contestant[] {
  if (torch === undefined) return [];
  const request = {
    task: "attention",
    threads: context.machine.threads,
    dtype,
    batch: 1,
    heads,
    tokens,
    head_dim: size,
    kind: "unfused",
    backward: direction === "backward",
  } as const;
  const run = async (repetitions: number) => (await torch.request({ ...request, repetitions })).seconds;
  return [{ name: "PyTorch", run }];
}

function directionBars(
  context: SuiteContext,
  { dtype, tokens }: AttentionShape,
  direction: Direction,
  share: number,
  { spreads }: Comparison,
): Bar[] {
  if (dtype !== "bf16") return [];
  const ours = spreads.get("Slipstream")!.median;
  const name = `attention ${dtype} ${tokens} ${direction}`;
  const against = (key: string, words: string): Bar => {
    const other = spreads.get(key)?.median;
    const ratio = other === undefined ? undefined : other / ours;
    const reason = ratio === undefined ? `${key} was not measured` : undefined;
    return bar(`${name}: speed against ${words}`, "ratio", "at least", bars.unfused, ratio, reason);
  };
  return [
    bar(
      `${name}: share of the ${peakName(context.machine, dtype)}`,
      "share",
      "at least",
      bars[direction],
      share,
    ),
    against("unfused", "our own unfused ops"),
    against("PyTorch", "PyTorch's unfused attention"),
  ];
}

async function measure(context: SuiteContext, dtype: FloatDType, peers: Peers): Promise<void> {
  const shape = { dtype, tokens: 2048, heads: 8, size: 64 };
  const memory = makeMemory(shape);
  const fused = fusedKernels(context, shape, memory);
  const unfused = unfusedPrograms(context, shape, memory);
  for (const direction of directions) {
    fused[direction]();
    await unfused.run[direction]();
  }
  check(shape, memory, unfused);
  for (const direction of directions) {
    const meter = new LimitMeter(context.machine);
    const contestants: Contestant[] = [
      { name: "Slipstream", run: (count) => timeEach(fused[direction], count) },
      { name: "unfused", run: (count) => timeEachAsync(unfused.run[direction], count) },
      ...torchContestant(context, shape, peers, direction),
    ];
    const result = await interleave(contestants, { rounds: 5, seconds: 0.6, between: meter.sample });
    report(context, shape, direction, result, meter.limits, peers);
  }
  unfused.dispose();
}

function report(
  context: SuiteContext,
  shape: AttentionShape,
  direction: Direction,
  result: Comparison,
  limits: Limits,
  peers: Peers,
): void {
  const { dtype, tokens, heads, size } = shape;
  const pairs = visiblePairs(tokens, 1, { causal: true, window: 0 });
  const operations = products[direction] * 2 * pairs * heads * size;
  const ours = result.spreads.get("Slipstream")!;
  const share = operations / ours.median / limits[dtype];
  const figures: Figure[] = [
    figure("time", "seconds", ours),
    figure("rate of unmasked work", "FLOP/s", operations / ours.median),
    figure(`of the measured ${peakName(context.machine, dtype)}`, "share", share),
  ];
  for (const [key, words] of [
    ["unfused", "our own unfused ops"],
    ["PyTorch", "PyTorch's unfused attention"],
  ] as const) {
    const other = result.spreads.get(key);
    if (other === undefined) continue;
    figures.push(figure(words, "seconds", other));
    figures.push(figure(`times as fast as ${words}`, "ratio", other.median / ours.median));
  }
  figures.push(...limitFigures(context.machine, limits));
  const notes = [...result.failures].map(([name, reason]) => `${name} failed: ${reason}`);
  if (dtype === "f32" && peers.blasWarning !== undefined) notes.push(peers.blasWarning);
  context.report({
    name: `${dtype}, ${tokens} tokens, ${heads} heads of ${size}, causal, ${direction}`,
    figures,
    bars: directionBars(context, shape, direction, share, result),
    notes,
  });
}

/** Memory and time of forward and backward together as one program, longer each time. */
async function measureLengths({ report }: SuiteContext): Promise<void> {
  const heads = 2;
  const results = new Map<number, LengthResult>();
  const figures: Figure[] = [];
  for (const tokens of [2048, 4096, 8192, 16384, 32768]) {
    const printed = await runChild("attention_length", [String(tokens), String(heads)]);
    const result = JSON.parse(printed) as LengthResult;
    results.set(tokens, result);
    figures.push(figure(`${tokens} tokens: time`, "seconds", result.seconds));
    figures.push(figure(`${tokens} tokens: planned memory`, "bytes", result.planned));
    if (result.grown !== undefined)
      figures.push(figure(`${tokens} tokens: growth of resident memory`, "bytes", result.grown));
  }
  // Linear: a token costs as much in the longest sequence as in a short one. With a score matrix it would cost
  // eight times as much. Below 4096 tokens, other small things of the process show.
  const perToken = (kind: "planned" | "grown", tokens: number): number | undefined => {
    const bytes = results.get(tokens)![kind];
    return bytes === undefined ? undefined : bytes / tokens;
  };
  const growth = (kind: "planned" | "grown"): number | undefined => {
    const [long, short] = [perToken(kind, 32768), perToken(kind, 4096)];
    return long === undefined || short === undefined ? undefined : long / short;
  };
  const measured = growth("grown");
  const unknown = measured === undefined ? "the system does not tell peak memory" : undefined;
  const name = "a token, 32768 tokens against 4096";
  report({
    name: `bf16, ${heads} heads of 64, causal, forward and backward, by length`,
    figures,
    bars: [
      bar(`attention: planned memory ${name}`, "ratio", "at most", bars.linear, growth("planned")),
      bar(`attention: resident memory ${name}`, "ratio", "at most", bars.linear, measured, unknown),
    ],
    notes: [
      "operands and gradients are counted; the score matrix of one head over 32768 tokens alone would be 2048 MiB",
    ],
  });
}

export const run: RunSuite = async (context) => {
  await withPeers({ torch: true }, context.note, async (peers) => {
    for (const dtype of ["bf16", "f32"] as const) {
      await measure(context, dtype, peers);
      await peers.torch?.request({ task: "forget" }).catch(() => {});
    }
  });
  await measureLengths(context);
};
