import { batchHint, missingBatchSize } from "./batch.ts";
import type { ConfigProblem } from "./problems.ts";
import type { TrainConfig } from "./schema/schema.ts";
import { checkRanks } from "./semantics_ranks.ts";
import type { ConfigPath } from "./source.ts";

/** A problem between keys that are each valid alone; the first path is the key to blame. */
export interface Contradiction extends ConfigProblem {
  /** Every key that takes part. */
  readonly involved: readonly ConfigPath[];
}

/** Adds a contradiction; the first key is the one to blame. */
export type Report = (
  paths: readonly [string, ...string[]],
  summary: string,
  details?: { expected?: string; received?: string; hint?: string },
) => void;

/**
 * What contradicts itself in a config whose values are all valid. `given` says whether the config itself
 * sets a key (and not its default).
 */
export function contradictions(config: TrainConfig, given: (path: string) => boolean): Contradiction[] {
  const found: Contradiction[] = [];
  const report: Report = (paths, summary, details = {}) => {
    const involved = paths.map((path) => path.split("."));
    found.push({ path: involved[0]!, involved, summary, ...details });
  };
  checkModel(config, report);
  checkTokenizer(config, report);
  checkData(config, given, report);
  checkBatch(config, report);
  checkPrecision(config, report);
  checkSchedule(config, report);
  checkOptimizer(config, report);
  checkRecomputation(config, report);
  checkRanks(config, given, report);
  return found;
}

function checkModel({ model, data }: TrainConfig, report: Report): void {
  if (model.type === undefined) return;
  const [width, heads, positions] =
    model.type === "gpt2"
      ? (["n_embd", "n_head", "n_positions"] as const)
      : (["hidden_size", "num_attention_heads", "max_position_embeddings"] as const);
  const sizes: Readonly<Record<string, unknown>> = model;
  const size = (key: string) => Number(sizes[key]);
  const headDimension = model.type === "gpt2" ? undefined : model.head_dim;
  if (headDimension === undefined && size(width) % size(heads) !== 0) {
    report([`model.${heads}`, `model.${width}`], `model.${width} does not divide by model.${heads}`, {
      received: `${size(width)} / ${size(heads)} = ${size(width) / size(heads)}`,
    });
  } else if (model.type !== "gpt2" && (headDimension ?? size(width) / size(heads)) % 2 !== 0) {
    report(
      ["model.num_attention_heads", "model.hidden_size", "model.head_dim"],
      "rotary positions need heads of an even width",
      {
        received: `heads of ${headDimension ?? size(width) / size(heads)}`,
      },
    );
  }
  if (
    model.type !== "gpt2" &&
    model.num_key_value_heads !== undefined &&
    size(heads) % model.num_key_value_heads !== 0
  ) {
    report(
      ["model.num_key_value_heads", "model.num_attention_heads"],
      "every key and value head must serve as many query heads",
      {
        expected: `a divisor of model.num_attention_heads, ${size(heads)}`,
        received: String(model.num_key_value_heads),
      },
    );
  }
  if (data.sequence_length > size(positions)) {
    report(["data.sequence_length", `model.${positions}`], "the rows are longer than the model's positions", {
      expected: `at most model.${positions}, ${size(positions)}`,
      received: String(data.sequence_length),
    });
  }
}

function checkTokenizer({ model, tokenizer }: TrainConfig, report: Report): void {
  if (tokenizer === undefined) {
    if (model.type !== undefined) {
      report(["tokenizer"], "a new model needs a tokenizer", {
        hint: "set tokenizer.path, or tokenizer.train.vocabulary_size to train one on the data",
      });
    }
    return;
  }
  if ((tokenizer.path === undefined) === (tokenizer.train === undefined)) {
    report(["tokenizer", "tokenizer.path", "tokenizer.train"], "a tokenizer is either loaded or trained", {
      expected: "one of tokenizer.path and tokenizer.train",
      received: tokenizer.path === undefined ? "neither" : "both",
    });
  }
  if (tokenizer.train === undefined) return;
  if (model.type === undefined) {
    report(["tokenizer.train", "model.path"], "a model that is fine-tuned keeps its own tokenizer", {
      hint: "remove the tokenizer section",
    });
  } else if (model.vocab_size !== undefined && tokenizer.train.vocabulary_size > model.vocab_size) {
    report(
      ["tokenizer.train.vocabulary_size", "model.vocab_size"],
      "the tokenizer would have more tokens than the model",
      {
        expected: `at most model.vocab_size, ${model.vocab_size}`,
        received: String(tokenizer.train.vocabulary_size),
      },
    );
  }
}

function checkData({ data }: TrainConfig, given: (path: string) => boolean, report: Report): void {
  if ((data.prompt_field === undefined) !== (data.completion_field === undefined)) {
    const [there, missing] =
      data.prompt_field === undefined
        ? ["completion_field", "prompt_field"]
        : ["prompt_field", "completion_field"];
    report([`data.${there}`, `data.${missing}`], `data.${there} needs data.${missing} beside it`);
  }
  if (data.text_field !== undefined && data.prompt_field !== undefined) {
    report(
      ["data.text_field", "data.prompt_field"],
      "an example is either one text or a prompt and its completion",
      {
        hint: "remove data.text_field, or data.prompt_field and data.completion_field",
      },
    );
  }
  if (given("evaluation") && data.validation === undefined) {
    report(["evaluation", "data.validation"], "there is nothing to evaluate on", {
      hint: "set data.validation to files, or to a fraction such as 0.05",
    });
  }
}

function checkBatch(config: TrainConfig, report: Report): void {
  const batch = config.train_batch_size;
  const micro = config.train_micro_batch_size_per_gpu;
  if (batch === undefined && micro === undefined) {
    report(["train_batch_size", "train_micro_batch_size_per_gpu"], missingBatchSize, { hint: batchHint });
    return;
  }
  const steps = config.gradient_accumulation_steps;
  const rows = (micro ?? 1) * (steps ?? 1);
  // Whatever the number of ranks, it can only multiply.
  if (batch !== undefined && batch % rows !== 0) {
    const factors = [
      micro === undefined ? [] : `${micro} micro`,
      steps === undefined ? [] : `${steps} accumulation`,
    ];
    report(
      ["train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"],
      "the batch sizes do not multiply out for any number of ranks",
      {
        expected: "train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks",
        received: `${batch} = ${factors.flat().join(" x ")} x ranks, and ${batch} / ${rows} = ${Number((batch / rows).toFixed(4))}`,
      },
    );
  }
}

function checkPrecision({ bf16, fp16 }: TrainConfig, report: Report): void {
  if (bf16.enabled && fp16.enabled) {
    report(["fp16.enabled", "bf16.enabled"], "bf16 and fp16 are both enabled", {
      expected: "at most one of them",
    });
  }
  const initialScale = fp16.loss_scale === 0 ? 2 ** fp16.initial_scale_power : fp16.loss_scale;
  if (fp16.enabled && fp16.loss_scale === 0 && fp16.min_loss_scale > initialScale) {
    report(
      ["fp16.min_loss_scale", "fp16.initial_scale_power"],
      "the loss scale would start below its minimum",
      {
        expected: `at most 2^${fp16.initial_scale_power} = ${initialScale}`,
        received: String(fp16.min_loss_scale),
      },
    );
  }
}

function checkSchedule({ scheduler, max_steps: steps }: TrainConfig, report: Report): void {
  const ordered = (params: Readonly<Record<string, unknown>>, low: string, high: string) => {
    if (Number(params[low]) > Number(params[high])) {
      report([`scheduler.params.${low}`, `scheduler.params.${high}`], `${low} is above ${high}`, {
        received: `${String(params[low])} > ${String(params[high])}`,
      });
    }
  };
  switch (scheduler.type) {
    case "WarmupLR":
      ordered(scheduler.params, "warmup_min_lr", "warmup_max_lr");
      return;
    case "WarmupDecayLR":
      ordered(scheduler.params, "warmup_min_lr", "warmup_max_lr");
      checkTotalSteps(scheduler.params, report);
      return;
    case "WarmupCosineLR": {
      checkTotalSteps(scheduler.params, report);
      const total = scheduler.params.total_num_steps;
      if (steps !== undefined && steps > total) {
        report(
          ["scheduler.params.total_num_steps", "max_steps"],
          "the run is longer than its cosine, which would rise again",
          {
            expected: `at least max_steps, ${steps}`,
            received: String(total),
          },
        );
      }
      return;
    }
    case "OneCycle":
      ordered(scheduler.params, "cycle_min_lr", "cycle_max_lr");
      ordered(scheduler.params, "cycle_min_mom", "cycle_max_mom");
      return;
    case "Constant":
    case "LRRangeTest":
      return;
    default:
      scheduler satisfies never;
  }
}

function checkTotalSteps(
  params: { readonly warmup_num_steps: number; readonly total_num_steps: number },
  report: Report,
): void {
  if (params.warmup_num_steps > params.total_num_steps) {
    report(
      ["scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps"],
      "the warmup is longer than the whole schedule",
      {
        expected: `at most total_num_steps, ${params.total_num_steps}`,
        received: `${params.warmup_num_steps}${params.warmup_num_steps === 1000 ? " (1000 is the default)" : ""}`,
      },
    );
  }
}

function checkOptimizer({ optimizer, scheduler }: TrainConfig, report: Report): void {
  if (optimizer.type === "Adagrad" && scheduler.type === "OneCycle" && scheduler.params.cycle_momentum) {
    report(["scheduler.params.cycle_momentum", "optimizer.type"], "Adagrad has no momentum to cycle", {
      hint: "set scheduler.params.cycle_momentum to false",
    });
  }
  if (optimizer.type === "SGD" && optimizer.params.nesterov && optimizer.params.momentum === 0) {
    report(["optimizer.params.nesterov", "optimizer.params.momentum"], "nesterov needs momentum", {
      hint: "set optimizer.params.momentum, such as 0.9",
    });
  }
}

function checkRecomputation({ activation_checkpointing: recompute }: TrainConfig, report: Report): void {
  const pairs = [
    ["every_k", "every", recompute.every],
    ["budget", "memory_budget", recompute.memory_budget],
  ] as const;
  for (const [mode, key, value] of pairs) {
    const path = `activation_checkpointing.${key}`;
    if (recompute.mode === mode && value === undefined) {
      report(["activation_checkpointing.mode", path], `activation_checkpointing.mode: ${mode} needs ${path}`);
    } else if (recompute.mode !== mode && value !== undefined) {
      report([path, "activation_checkpointing.mode"], `${path} counts only with mode: ${mode}`, {
        received: `mode: ${recompute.mode}`,
      });
    }
  }
}
