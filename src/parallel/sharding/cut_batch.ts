import { resolveShape, type SymbolValues } from "../../base/shape.ts";
import type { Mesh } from "../mesh.ts";
import { layoutKey } from "./layout.ts";
import type { InputPart } from "./shard_graph.ts";

/** A packed batch, all of it. */
export interface WholeBatch {
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  readonly positions: Int32Array;
  /** i32 `[sequences + 1]` */
  readonly offsets: Int32Array;
}

/** What a rank binds of a batch. */
export interface LocalBatch {
  /** The leaves of the rank's graph, by name. */
  readonly leaves: Readonly<Record<string, Int32Array>>;
  readonly symbols: SymbolValues & { readonly tokens: number; readonly offsets: number };
}

/** A batch whose tokens are a multiple of `multiple`: those that are missing form a sequence without targets. */
export function padBatch(batch: WholeBatch, multiple: number): WholeBatch {
  const { tokens, targets, positions, offsets } = batch;
  const missing = (multiple - (tokens.length % multiple)) % multiple;
  if (missing === 0) return { tokens, targets, positions, offsets };
  const longer = (data: Int32Array, fill: (index: number) => number): Int32Array => {
    const padded = new Int32Array(data.length + missing);
    padded.set(data);
    for (let index = 0; index < missing; index++) padded[data.length + index] = fill(index);
    return padded;
  };
  return {
    tokens: longer(tokens, () => 0),
    targets: longer(targets, () => -1),
    positions: longer(positions, (index) => index),
    offsets: Int32Array.of(...offsets, tokens.length + missing),
  };
}

/**
 * What a rank reads of a batch that all ranks of its sequence and tensor axes have.
 * @param inputs the batch leaves of the rank's graph; one that is not of the batch is left to the caller
 * @param multiple as `ShardedTraining.tokenMultiple`
 */
export function cutBatch(
  batch: WholeBatch,
  inputs: readonly InputPart[],
  mesh: Mesh,
  multiple: number,
): LocalBatch {
  const padded = padBatch(batch, multiple);
  const symbols = { tokens: padded.tokens.length / multiple, offsets: padded.offsets.length };
  const sources = new Map<string, Int32Array>(Object.entries(padded));
  const leaves: Record<string, Int32Array> = {};
  for (const { name, source, layout, shape } of inputs) {
    const data = sources.get(source);
    if (data === undefined) continue;
    const [size] = resolveShape(shape, symbols) as [number];
    let index = 0;
    for (const axis of layout.dimensions[0]!) index = index * mesh.sizes[axis] + mesh.place[axis];
    leaves[name] = layoutKey(layout) === "" ? data : data.subarray(index * size, (index + 1) * size);
  }
  return { leaves, symbols };
}
