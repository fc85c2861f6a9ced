import type { TrainConfig } from "./schema/schema.ts";
import type { Report } from "./semantics.ts";

/** What contradicts itself in how ranks share the work and memory, whatever their number. */
export function checkRanks(config: TrainConfig, given: (path: string) => boolean, report: Report): void {
  checkOffload(config, report);
  checkInterleaving(config, report);
  checkActivations(config, report);
  checkPartitioning(config, report);
  checkAxes(config, report);
  checkPipeline(config, given, report);
  checkSequence(config, given, report);
  const { min_gpus: fewest, max_gpus: most } = config.elasticity;
  if (most !== undefined && fewest > most) {
    report(["elasticity.min_gpus", "elasticity.max_gpus"], "elasticity.min_gpus is above max_gpus", {
      received: `${fewest} > ${most}`,
    });
  }
}

function checkOffload({ zero_optimization: zero, memory, aio }: TrainConfig, report: Report): void {
  if (aio.block_size % 4096 !== 0) {
    report(["aio.block_size"], "disks are read and written in whole blocks", {
      expected: "a multiple of 4096 bytes",
      received: String(aio.block_size),
      hint: `such as ${Math.ceil(aio.block_size / 4096) * 4096}`,
    });
  }
  for (const [key, most] of [
    ["queue_depth", 1024],
    ["thread_count", 64],
  ] as const) {
    if (aio[key] > most) {
      report([`aio.${key}`], `aio.${key} is more than a disk can use`, {
        expected: `at most ${most}`,
        received: String(aio[key]),
      });
    }
  }
  for (const [name, what] of [
    ["offload_optimizer", "optimizer states"],
    ["offload_param", "parameters"],
  ] as const) {
    const { device, nvme_path: path } = zero[name];
    if (device === "nvme" && path === undefined && memory.nvme_path === undefined) {
      const key = `zero_optimization.${name}.nvme_path` as const;
      report([key, `zero_optimization.${name}.device`], `there is no folder for the ${what} on disk`, {
        expected: `${key} or memory.nvme_path: a folder on the disk`,
        received: "device: nvme without a path",
        hint: `set ${key}, such as /mnt/nvme/slipstream`,
      });
    }
  }
  const { offload_optimizer: optimizer, offload_param: parameter } = zero;
  const bothOnDisk = optimizer.device === "nvme" && parameter.device === "nvme";
  const paths = [optimizer, parameter].map(({ nvme_path: path }) => path ?? memory.nvme_path);
  if (bothOnDisk && paths[0] !== paths[1] && !paths.includes(undefined)) {
    report(
      ["zero_optimization.offload_optimizer.nvme_path", "zero_optimization.offload_param.nvme_path"],
      "a rank keeps all of its states on disk in one file",
      {
        expected: "one folder for optimizer states and parameters",
        received: paths.join(" and "),
        hint: "set memory.nvme_path, and leave both out",
      },
    );
  }
  if (zero.offload_param.device !== "none" && zero.stage !== 3) {
    report(
      ["zero_optimization.offload_param.device", "zero_optimization.stage"],
      "only partitioned parameters can be offloaded",
      {
        expected: "zero_optimization.stage: 3",
        received: `stage ${zero.stage}`,
        hint: "set zero_optimization.stage to 3, or offload_param.device to none",
      },
    );
  }
}

/** Updates during backward cannot wait for what is only known after it. */
function checkInterleaving(config: TrainConfig, report: Report): void {
  if (config.zero_optimization.offload_optimizer.interleave !== "always") return;
  const interleave = "zero_optimization.offload_optimizer.interleave";
  const reasons: readonly (readonly [string, boolean, string])[] = [
    ["gradient_clipping", config.gradient_clipping > 0, "clipping needs the norm of the whole gradient"],
    ["fp16.enabled", config.fp16.enabled, "loss scaling looks for overflows in the whole gradient"],
    [
      "parallel.pipeline",
      (config.parallel.pipeline ?? 1) > 1,
      "pipeline stages update after all micro-batches",
    ],
  ];
  for (const [key, on, reason] of reasons) {
    if (!on) continue;
    report([interleave, key], `parameters cannot be updated during backward: ${reason}`, {
      expected: `${interleave}: auto or never`,
      received: "always",
      hint: `set ${interleave} to auto, or turn ${key} off`,
    });
  }
}

function checkActivations(
  { activation_checkpointing: section, tensor_parallel: tensor, memory, parallel }: TrainConfig,
  report: Report,
): void {
  if (section.cpu_checkpointing && memory.nvme_path === undefined) {
    report(
      ["activation_checkpointing.cpu_checkpointing", "memory.nvme_path"],
      "there is no folder for activations on disk",
      {
        expected: "memory.nvme_path: a folder on the disk",
        received: "cpu_checkpointing: true, where host memory is what activations are in already",
        hint: "set memory.nvme_path, such as /mnt/nvme/slipstream, or cpu_checkpointing to false",
      },
    );
  }
  if (section.cpu_checkpointing && (parallel.pipeline ?? 1) > 1) {
    report(
      ["activation_checkpointing.cpu_checkpointing", "parallel.pipeline"],
      "activations of a pipeline stay in memory",
      {
        expected: "cpu_checkpointing: false with a pipeline",
        received: `${parallel.pipeline} stages`,
        hint: "what a stage keeps for each micro-batch is handed from program to program; set activation_checkpointing.mode to keep less, or remove parallel.pipeline",
      },
    );
  }
  if (section.partition_activations && !tensor.sequence_sharded_norms) {
    report(
      ["activation_checkpointing.partition_activations", "tensor_parallel.sequence_sharded_norms"],
      "what is kept for backward is split over tensor ranks only where it is computed so",
      {
        expected: "tensor_parallel.sequence_sharded_norms: true",
        received: "false",
        hint: "remove one of the two",
      },
    );
  }
}

function checkPartitioning({ zero_optimization: zero }: TrainConfig, report: Report): void {
  const needs: readonly (readonly [string, boolean])[] = [
    ["zero_hpz_partition_size", zero.zero_hpz_partition_size > 1],
    ["zero_quantized_weights", zero.zero_quantized_weights],
    ["mics_shard_size", zero.mics_shard_size > 0],
  ];
  for (const [key, on] of needs) {
    if (!on || zero.stage === 3) continue;
    report(
      [`zero_optimization.${key}`, "zero_optimization.stage"],
      `zero_optimization.${key} is about partitioned parameters`,
      { expected: "zero_optimization.stage: 3", received: `stage ${zero.stage}` },
    );
  }
  if (zero.zero_quantized_gradients && zero.stage < 2) {
    report(
      ["zero_optimization.zero_quantized_gradients", "zero_optimization.stage"],
      "zero_optimization.zero_quantized_gradients is about partitioned gradients",
      { expected: "zero_optimization.stage: 2 or 3", received: `stage ${zero.stage}` },
    );
  }
  if (zero.mics_shard_size > 0 && zero.zero_hpz_partition_size > 1) {
    report(
      ["zero_optimization.zero_hpz_partition_size", "zero_optimization.mics_shard_size"],
      "hpZ and MiCS are two ways to keep gathers near; they do not go together",
      { hint: "remove one of the two" },
    );
  }
}

function checkAxes({ parallel, tensor_parallel: tensor, model }: TrainConfig, report: Report): void {
  if (
    parallel.tensor !== undefined &&
    tensor.autotp_size !== undefined &&
    parallel.tensor !== tensor.autotp_size
  ) {
    report(
      ["tensor_parallel.autotp_size", "parallel.tensor"],
      "tensor_parallel.autotp_size and parallel.tensor are two names of one number",
      { received: `${tensor.autotp_size} and ${parallel.tensor}` },
    );
  }
  if ((parallel.expert ?? 1) > 1) {
    report(["parallel.expert"], "the model has no experts to split", {
      expected: "1",
      received: `${parallel.expert}${model.type === undefined ? "" : ` for a ${model.type} model`}`,
      hint: "remove parallel.expert",
    });
  }
}

function checkPipeline(
  { parallel, pipeline, zero_optimization: zero }: TrainConfig,
  given: (path: string) => boolean,
  report: Report,
): void {
  const stages = parallel.pipeline ?? 1;
  if (given("pipeline") && stages === 1 && !parallel.auto) {
    report(["pipeline", "parallel.pipeline"], "a schedule without stages does nothing", {
      hint: "set parallel.pipeline to the number of stages, or remove the pipeline section",
    });
  }
  if (pipeline.chunks !== undefined && pipeline.schedule !== "interleaved") {
    report(
      ["pipeline.chunks", "pipeline.schedule"],
      "pipeline.chunks counts only with schedule: interleaved",
      { received: `schedule: ${pipeline.schedule}` },
    );
  }
  if (pipeline.chunks === 1) {
    report(["pipeline.chunks", "pipeline.schedule"], "an interleaved schedule has several chunks a stage", {
      expected: "at least 2",
      received: "1",
    });
  }
  if (stages > 1 && zero.stage >= 2) {
    report(
      ["zero_optimization.stage", "parallel.pipeline"],
      `a pipeline and zero_optimization.stage ${zero.stage} exclude each other`,
      {
        expected: "stage 0 or 1 with a pipeline",
        received: `stage ${zero.stage} with ${stages} pipeline stages`,
        hint: "a pipeline goes through the parameters once a micro-batch: partitioned gradients or parameters would travel each time; set stage to 1, or remove parallel.pipeline",
      },
    );
  }
}

function checkSequence(
  { parallel, sequence_parallel: section }: TrainConfig,
  given: (path: string) => boolean,
  report: Report,
): void {
  const ranks = parallel.sequence ?? 1;
  if (given("sequence_parallel") && ranks === 1 && !parallel.auto) {
    report(["sequence_parallel", "parallel.sequence"], "there are no ranks to split sequences over", {
      hint: "set parallel.sequence to their number, or remove the sequence_parallel section",
    });
    return;
  }
  const { mode, ulysses_degree: heads, ring_degree: ring, inner_ring: inner } = section;
  if (mode === "dsp") {
    report(["sequence_parallel.mode"], "dsp is for models with two sequence dimensions", {
      expected: "ulysses, ring, striped, usp, loongtrain or burst for a language model",
      received: "dsp",
    });
  }
  const twoDimensional = mode === "usp" || mode === "loongtrain";
  for (const [key, value] of [
    ["ulysses_degree", heads],
    ["ring_degree", ring],
  ] as const) {
    if (value !== undefined && !twoDimensional) {
      report(
        [`sequence_parallel.${key}`, "sequence_parallel.mode"],
        `sequence_parallel.${key} counts only with mode: usp or loongtrain`,
        { received: `mode: ${mode}` },
      );
    }
  }
  if (inner !== undefined && mode !== "loongtrain" && mode !== "burst") {
    report(
      ["sequence_parallel.inner_ring", "sequence_parallel.mode"],
      "sequence_parallel.inner_ring counts only with mode: loongtrain or burst",
      { received: `mode: ${mode}` },
    );
  }
  if (!twoDimensional) return;
  if (heads === undefined && ring === undefined) {
    report(
      ["sequence_parallel.ulysses_degree", "sequence_parallel.mode"],
      `sequence_parallel.mode: ${mode} needs to know how the ranks are split`,
      {
        expected: "ulysses_degree (for heads), ring_degree (for tokens), or both",
        hint: `such as ulysses_degree: ${Math.max(1, Math.floor(ranks / 2))}`,
      },
    );
  } else if (ranks % ((heads ?? 1) * (ring ?? 1)) !== 0 || (heads ?? ranks) * (ring ?? ranks) < ranks) {
    report(
      ["sequence_parallel.ulysses_degree", "sequence_parallel.ring_degree", "parallel.sequence"],
      "the degrees do not multiply to parallel.sequence",
      {
        expected: `${ranks} ranks`,
        received: `ulysses_degree ${heads ?? "?"} x ring_degree ${ring ?? "?"}`,
      },
    );
  }
}
