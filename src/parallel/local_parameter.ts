import type { Box } from "../base/pieces.ts";
import type { MeshAxis } from "./mesh.ts";

/** A parameter as one rank's programs see it, after tensor and pipeline parallelism and before ZeRO. */
export interface LocalParameter {
  /** The full name, as in a Hugging Face checkpoint: also that of the leaf in the rank's graph. */
  readonly name: string;
  /** The shape of the whole parameter. */
  readonly shape: readonly number[];
  /** The part that this rank's leaf of that name holds; the whole where nothing cuts it. */
  readonly box: Box;
  /**
   * Axes over which the ranks hold the same part and compute different terms of its gradient: what must be added up
   * before an update, and what ZeRO partitions over. Always has `data`.
   */
  readonly reducedOver: readonly MeshAxis[];
  /** Axes over which the ranks hold the same part and compute the same gradient: counted once in norms. */
  readonly replicatedOver: readonly MeshAxis[];
}
