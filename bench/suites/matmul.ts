/**
 * Matrix products: 1024, 2048 and 4096 in bf16 and float32 against the machine's peak, PyTorch and
 * onnxruntime; then the products of a training step (2048 tokens) in all transposes, against the peak.
 */
import { type Bar, bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import { type Contestant, interleave, timeEach } from "../harness/interleave.ts";
import { LimitMeter, limitFigures, peakName } from "../harness/limits.ts";
import { type Peers, withPeers } from "../harness/peers.ts";
import {
  type FloatDType,
  type HeldTensor,
  noise,
  relativeError,
  requireClose,
  toFloat64,
  tolerance,
  zeros,
} from "../harness/tensors.ts";

/** C [m, n] = A [m, k] B [k, n]; a transposed operand is stored the other way round. */
interface Product {
  readonly dtype: FloatDType;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

/** The bars of issue 2 for square products. */
const bars = {
  bf16: { share: 0.45, torch: 1.5 },
  f32: { share: 0.8, onnx: 1 },
} as const;

/** Outputs and inputs of the linear layers of the `training` suite's model. */
const trainingWidths = [
  [512, 512],
  [1408, 512],
  [512, 1408],
  [4096, 512],
] as const;

function nameOf({ dtype, m, n, k, transposeA, transposeB }: Product): string {
  return `${dtype} ${m} x ${n} x ${k}${transposeA ? ", A transposed" : ""}${transposeB ? ", B transposed" : ""}`;
}

/** @throws where sampled rows of C are not what float64 says. */
function check(product: Product, a: HeldTensor, b: HeldTensor, c: HeldTensor): void {
  const { dtype, m, n, k, transposeA, transposeB } = product;
  const [left, right, found] = [toFloat64(a), toFloat64(b), toFloat64(c)];
  const rows = [0, Math.floor(m / 2) + 1, m - 1];
  const exact = new Float64Array(rows.length * n);
  const computed = new Float64Array(rows.length * n);
  rows.forEach((row, index) => {
    const sums = exact.subarray(index * n, (index + 1) * n);
    for (let inner = 0; inner < k; inner++) {
      const factor = left[transposeA ? inner * m + row : row * k + inner]!;
      const [start, step] = transposeB ? [inner, k] : [inner * n, 1];
      for (let column = 0; column < n; column++) sums[column]! += factor * right[start + column * step]!;
    }
    computed.set(found.subarray(row * n, (row + 1) * n), index * n);
  });
  requireClose(nameOf(product), relativeError(computed, exact), tolerance(dtype, k));
}

/** Slipstream's own kernel as a contestant; the first run is checked. */
function ourProduct(context: SuiteContext, product: Product, name: string): Contestant {
  const { dtype, m, n, k, transposeA, transposeB } = product;
  const a = noise(dtype, transposeA ? [k, m] : [m, k], 1);
  const b = noise(dtype, transposeB ? [n, k] : [k, n], 2);
  const c = zeros(dtype, [m, n]);
  const { isa, threads } = context.machine;
  const attributes = [Number(transposeA), Number(transposeB), 0, 0];
  const multiply = (): void => {
    loadAddon().runKernel("matmul", isa as IsaName, [a, b], [c], attributes, threads);
  };
  multiply();
  check(product, a, b, c);
  return { name, run: (repetitions) => timeEach(multiply, repetitions) };
}

function peerContestants(context: SuiteContext, product: Product, peers: Peers): Contestant[] {
  const { dtype, m, n, k } = product;
  const { threads } = context.machine;
  const wanted = [peers.torch, dtype === "f32" ? peers.onnx : undefined];
  return wanted
    .filter((peer) => peer !== undefined)
    .map((peer) => ({
      name: peer.name,
      run: async (repetitions) => {
        const request = { task: "matmul", threads, dtype, m, n, k, repetitions } as const;
        return (await peer.request(request)).seconds;
      },
    }));
}

/** Times a square product beside its peers, and reports it with its bars. */
async function measureSquare(context: SuiteContext, product: Product, peers: Peers): Promise<void> {
  const { dtype, m, n, k } = product;
  const { machine } = context;
  const meter = new LimitMeter(machine);
  const contestants = [
    ourProduct(context, product, "Slipstream"),
    ...peerContestants(context, product, peers),
  ];
  const result = await interleave(contestants, { rounds: 6, seconds: 1, between: meter.sample });
  const { limits } = meter;
  const ours = result.spreads.get("Slipstream")!;
  const rate = (2 * m * n * k) / ours.median;
  const share = rate / limits[dtype];
  const figures: Figure[] = [
    figure("time", "seconds", ours),
    figure("rate", "FLOP/s", rate),
    figure(`of the measured ${peakName(machine, dtype)}`, "share", share),
  ];
  const ratios = new Map<string, number>();
  for (const [name, spread] of result.spreads) {
    if (name === "Slipstream") continue;
    ratios.set(name, spread.median / ours.median);
    figures.push(figure(`${name}`, "seconds", spread));
    figures.push(figure(`times as fast as ${name}`, "ratio", spread.median / ours.median));
  }
  const notes = [...result.failures].map(([name, reason]) => `${name} failed: ${reason}`);
  if (dtype === "f32" && peers.blasWarning !== undefined) notes.push(peers.blasWarning);
  figures.push(...limitFigures(machine, limits));
  const bars = barsOf(context, product, share, ratios);
  context.report({ name: nameOf(product), figures, bars, notes });
}

/** Times a product of a training step in all four layouts, taking turns. */
async function measureLayouts(context: SuiteContext, shape: Omit<Product, "transposeA" | "transposeB">) {
  const { dtype, m, n, k } = shape;
  const layouts = [
    { name: "A B", transposeA: false, transposeB: false },
    { name: "A B^T", transposeA: false, transposeB: true },
    { name: "A^T B", transposeA: true, transposeB: false },
    { name: "A^T B^T", transposeA: true, transposeB: true },
  ];
  const meter = new LimitMeter(context.machine);
  const contestants = layouts.map((layout) => ourProduct(context, { ...shape, ...layout }, layout.name));
  const { spreads } = await interleave(contestants, { rounds: 5, seconds: 0.3, between: meter.sample });
  const { limits } = meter;
  const figures = [...spreads].flatMap(([name, spread]) => {
    const share = (2 * m * n * k) / spread.median / limits[dtype];
    const peak = `of the measured ${peakName(context.machine, dtype)}`;
    return [figure(name, "seconds", spread), figure(`${name} ${peak}`, "share", share)];
  });
  figures.push(...limitFigures(context.machine, limits));
  context.report({ name: `${dtype} ${m} x ${n} x ${k}, all layouts`, figures, bars: [], notes: [] });
}

function barsOf(
  { machine }: SuiteContext,
  product: Product,
  share: number,
  ratios: ReadonlyMap<string, number>,
): Bar[] {
  const { dtype, m } = product;
  const compared = (peer: string, bound: number): Bar => {
    const reason = ratios.has(peer) ? undefined : `${peer} was not measured`;
    return bar(`${dtype} ${m}: speed against ${peer}`, "ratio", "at least", bound, ratios.get(peer), reason);
  };
  const peak = `${dtype} ${m}: share of the ${peakName(machine, dtype)}`;
  return [
    bar(peak, "share", "at least", bars[dtype].share, share),
    dtype === "bf16" ? compared("PyTorch", bars.bf16.torch) : compared("onnxruntime-node", bars.f32.onnx),
  ];
}

export const run: RunSuite = async (context) => {
  await withPeers({ torch: true, onnx: true }, context.note, async (peers) => {
    for (const dtype of ["bf16", "f32"] as const) {
      for (const size of [1024, 2048, 4096]) {
        const product = { dtype, m: size, n: size, k: size, transposeA: false, transposeB: false };
        await measureSquare(context, product, peers);
        await peers.torch?.request({ task: "forget" }).catch(() => {});
      }
    }
  });
  for (const dtype of ["bf16", "f32"] as const) {
    for (const [n, k] of trainingWidths) await measureLayouts(context, { dtype, m: 2048, n, k });
  }
};
