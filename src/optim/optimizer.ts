import type { OpName } from "../graph/ops.ts";

/** The hyperparameters of one update that change from step to step. */
export interface UpdateContext {
  /** Updates applied so far, this one included: 1 for the first. */
  readonly update: number;
  readonly learningRate: number;
  /** Replaces the momentum (Adam's first beta) where the schedule cycles it. */
  readonly momentum?: number | undefined;
  /** Whether this group of parameters decays. */
  readonly decay: boolean;
  /** Multiplies every gradient: clipping and the inverse of the loss scale. */
  readonly gradientScale: number;
}

/** How parameters follow their gradients: a kernel, its state buffers, and its hyperparameters. */
export interface Optimizer {
  readonly op: Extract<OpName, "adamw" | "adam" | "sgd" | "lion" | "adagrad">;
  /** Names of the float32 buffers, each as long as the parameters, zero at the start. */
  readonly states: readonly string[];
  /** How many hyperparameters the kernel takes. */
  readonly hyperparameters: number;
  /** The kernel's `hyper` operand (docs/kernels.md). */
  hyper(context: UpdateContext): number[];
}

/** Settings of Adam and AdamW. */
export interface AdamSettings {
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
}

/**
 * Adam (Kingma and Ba, arXiv 1412.6980); decoupled weight decay with `decoupled` (AdamW: Loshchilov and
 * Hutter, arXiv 1711.05101), else the decay is added to the gradient.
 */
export function adam(settings: AdamSettings, decoupled: boolean): Optimizer {
  const { betas, eps, weight_decay: decay } = settings;
  return {
    op: decoupled ? "adamw" : "adam",
    states: ["first_moment", "second_moment"],
    hyperparameters: 8,
    hyper: (context) => {
      const beta1 = context.momentum ?? betas[0];
      const { update, learningRate, gradientScale } = context;
      return [
        learningRate,
        beta1,
        betas[1],
        eps,
        context.decay ? decay : 0,
        1 - beta1 ** update,
        1 - betas[1] ** update,
        gradientScale,
      ];
    },
  };
}

/** Stochastic gradient descent with momentum, as PyTorch computes it. */
export function sgd(settings: { momentum: number; nesterov: boolean; weight_decay: number }): Optimizer {
  return {
    op: "sgd",
    states: ["momentum"],
    hyperparameters: 6,
    hyper: ({ learningRate, momentum, decay, gradientScale }) => [
      learningRate,
      momentum ?? settings.momentum,
      0,
      decay ? settings.weight_decay : 0,
      settings.nesterov ? 1 : 0,
      gradientScale,
    ],
  };
}

/** Lion: the sign of an interpolated momentum (Chen et al., arXiv 2302.06675). */
export function lion(settings: { betas: readonly [number, number]; weight_decay: number }): Optimizer {
  return {
    op: "lion",
    states: ["first_moment"],
    hyperparameters: 5,
    hyper: ({ learningRate, momentum, decay, gradientScale }) => [
      learningRate,
      momentum ?? settings.betas[0],
      settings.betas[1],
      decay ? settings.weight_decay : 0,
      gradientScale,
    ],
  };
}

/** Adagrad (Duchi et al., JMLR 2011). */
export function adagrad(settings: { eps: number; weight_decay: number }): Optimizer {
  return {
    op: "adagrad",
    states: ["sum_of_squares"],
    hyperparameters: 4,
    hyper: ({ learningRate, decay, gradientScale }) => [
      learningRate,
      settings.eps,
      decay ? settings.weight_decay : 0,
      gradientScale,
    ],
  };
}
