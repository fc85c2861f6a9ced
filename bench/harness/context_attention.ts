import { placesOf, type TokenOrder } from "../../src/parallel/context/token_order.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import {
  type FloatDType,
  type HeldTensor,
  noise,
  relativeError,
  requireClose,
  toFloat64,
  zeros,
} from "./tensors.ts";

/** One causal sequence, cut over ranks that pass keys and values around. */
export interface ContextAttentionCase {
  readonly dtype: FloatDType;
  readonly tokens: number;
  readonly heads: number;
  readonly size: number;
  readonly ranks: number;
  readonly isa: IsaName;
  /** Kernel threads of a rank. */
  readonly threads: number;
}

/** What a rank holds. */
interface Part {
  readonly places: Int32Array;
  readonly q: HeldTensor;
  readonly k: HeldTensor;
  readonly v: HeldTensor;
}

function seconds(body: () => void): number {
  const started = performance.now();
  body();
  return (performance.now() - started) / 1000;
}

function integers(values: ArrayLike<number>): HeldTensor {
  const tensor = zeros("i32", [values.length]);
  (tensor.data as Int32Array).set(values);
  return tensor;
}

/** Rows of the first axis. */
function rowsOf(tensor: HeldTensor, rows: Int32Array): HeldTensor {
  const [tokens, ...inner] = tensor.shape as [number, ...number[]];
  const size = tensor.data.length / tokens;
  const taken = zeros(tensor.type, [rows.length, ...inner]);
  rows.forEach((row, index) => {
    taken.data.set(tensor.data.subarray(row * size, (row + 1) * size) as never, index * size);
  });
  return taken;
}

/** Operands, and the result of attention over all tokens at once. */
export function prepare({ dtype, tokens, heads, size, isa, threads }: ContextAttentionCase) {
  const [q, k, v] = [1, 2, 3].map((seed) => noise(dtype, [tokens, heads, size], seed));
  const out = zeros(dtype, [tokens, heads, size]);
  const inputs = [q!, k!, v!, integers([0, tokens])];
  const outputs = [out, zeros("f32", [heads, tokens])];
  const run = () => loadAddon().runKernel("attention", isa, inputs, outputs, [size ** -0.5, 1, 0], threads);
  run();
  return { q: q!, k: k!, v: v!, out, seconds: seconds(run) };
}

/**
 * Kernel seconds of every rank's forward pass, one rank after another, each block in the fastest of `runs`.
 * @throws where the results are not those of attention over all tokens.
 */
export function rankSeconds(
  options: ContextAttentionCase,
  order: TokenOrder,
  whole: ReturnType<typeof prepare>,
  runs: number,
): number[] {
  const { dtype, tokens, heads, size, ranks, isa, threads } = options;
  const parts = Array.from({ length: ranks }, (_, rank): Part => {
    const places = placesOf(order, tokens, rank, ranks);
    const [q, k, v] = [whole.q, whole.k, whole.v].map((tensor) => rowsOf(tensor, places));
    return { places, q: q!, k: k!, v: v! };
  });
  const offsets = integers([0, tokens]);
  return parts.map(({ places, q }, rank) => {
    let total = 0;
    let before: HeldTensor[] = [];
    for (let step = 0; step < ranks; step++) {
      const source = parts[(rank + ranks - step) % ranks]!;
      const inputs = [q, source.k, source.v, integers(places), integers(source.places), offsets, ...before];
      const out = zeros(step + 1 === ranks ? dtype : "f32", [places.length, heads, size]);
      const results = [out, zeros("f32", [heads, places.length])];
      let best = Number.POSITIVE_INFINITY;
      for (let run = 0; run < runs; run++) {
        const attributes = [size ** -0.5, 1, 0];
        const once = () =>
          loadAddon().runKernel("attention_block", isa, inputs, results, attributes, threads);
        best = Math.min(best, seconds(once));
      }
      total += best;
      before = results;
    }
    const error = relativeError(toFloat64(before[0]!), toFloat64(rowsOf(whole.out, places)));
    requireClose(`${order} attention of rank ${rank}`, error, dtype === "f32" ? 1e-5 : 6e-3);
    return total;
  });
}
