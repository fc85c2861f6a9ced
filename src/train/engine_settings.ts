import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import { adagrad, adam, lion, type Optimizer, sgd } from "../optim/optimizer.ts";
import type { ZeroSettings } from "../parallel/zero/settings.ts";
import type { OptimizerSection, TrainConfig } from "./config/index.ts";

/** The dtype of activations that a config asks for. */
export function activationDType(config: TrainConfig): "f32" | "bf16" | "f16" {
  return config.bf16.enabled ? "bf16" : config.fp16.enabled ? "f16" : "f32";
}

/** The optimizer that a config asks for. */
export function createOptimizer(section: OptimizerSection): Optimizer {
  switch (section.type) {
    case "AdamW":
      return adam(section.params, true);
    case "Adam":
      return adam(section.params, section.params.adam_w_mode);
    case "SGD":
      return sgd(section.params);
    case "Lion":
      return lion(section.params);
    case "Adagrad":
      return adagrad(section.params);
  }
}

/** What `activation_checkpointing` asks of the compiler. */
export function recomputeSetting(config: TrainConfig): RecomputeSetting {
  const { mode, every, memory_budget: budget } = config.activation_checkpointing;
  switch (mode) {
    case "none":
    case "sqrt":
    case "keep_attention":
      return { mode };
    case "every_block":
      return { mode: "every_k", every: 1 };
    case "every_k":
      return { mode, every: every ?? 1 };
    case "budget":
      return { mode, bytes: budget ?? 0 };
  }
}

/** How `zero_optimization` partitions states. */
export function zeroSettings({ zero_optimization: zero }: TrainConfig): ZeroSettings {
  return {
    stage: zero.stage,
    reduceBucket: zero.reduce_bucket_size,
    gatherBucket: zero.allgather_bucket_size,
    overlap: zero.overlap_comm,
    maximumLive: zero.stage3_max_live_parameters,
    maximumReuseDistance: zero.stage3_max_reuse_distance,
    prefetchBucket: zero.stage3_prefetch_bucket_size,
    persistenceThreshold: zero.stage3_param_persistence_threshold,
    quantizedWeights: zero.zero_quantized_weights,
    quantizedGradients: zero.zero_quantized_gradients,
    shardSize: zero.mics_shard_size === -1 ? undefined : zero.mics_shard_size,
    secondarySize: zero.zero_hpz_partition_size === 1 ? undefined : zero.zero_hpz_partition_size,
  };
}
