/** How states are partitioned over ranks: DeepSpeed's `zero_optimization`. Sizes are numbers of elements. */
export interface ZeroSettings {
  /**
   * What every rank keeps only its part of: nothing (0), optimizer states (1), gradients too (2), parameters too (3)
   * (Rajbhandari et al., "ZeRO", arXiv 1910.02054).
   */
  readonly stage: 0 | 1 | 2 | 3;
  /** Gradients that are summed by one collective; "auto": as many as the model's largest block has. */
  readonly reduceBucket: number | "auto";
  /** Parameters that are gathered by one collective. */
  readonly gatherBucket: number | "auto";
  /** Whether collectives run beside kernels. */
  readonly overlap: boolean;
  /** Stage 3: gathered parameters that may be there at a time. */
  readonly maximumLive: number;
  /** Stage 3: a parameter stays where at most so many others are gathered before its next use. */
  readonly maximumReuseDistance: number | "auto";
  /** Stage 3: how much is gathered ahead of its use; 0 gathers at the use. */
  readonly prefetchBucket: number | "auto";
  /** Stage 3: parameters of at most so many elements stay whole. */
  readonly persistenceThreshold: number;
  /**
   * States are partitioned among so many consecutive ranks and the same in all such runs, which only sum gradients
   * with each other (MiCS: Zhang et al., arXiv 2205.00119); all ranks by default.
   */
  readonly shardSize?: number | undefined;
  /**
   * Stage 3: what was gathered for the forward pass is kept in parts among so many consecutive ranks, so that the
   * backward pass gathers from near ones (hpZ: Wang et al., "ZeRO++", arXiv 2306.10209).
   */
  readonly secondarySize?: number | undefined;
  /** Stage 3: parameters are gathered as 8-bit blocks (qwZ of ZeRO++). Lossy. */
  readonly quantizedWeights?: boolean | undefined;
  /**
   * Where gradients are partitioned: they are summed from 4-bit blocks that ranks send each other, and what was lost
   * is added to the next ones (qgZ of ZeRO++; error feedback: Seide et al., Interspeech 2014). Lossy.
   */
  readonly quantizedGradients?: boolean | undefined;
}

/** Nothing is partitioned; sizes follow the model. */
export const defaultZeroSettings: ZeroSettings = {
  stage: 0,
  reduceBucket: "auto",
  gatherBucket: "auto",
  overlap: true,
  maximumLive: 1e9,
  maximumReuseDistance: "auto",
  prefetchBucket: "auto",
  persistenceThreshold: 1e5,
};
