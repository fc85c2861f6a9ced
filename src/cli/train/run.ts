import { join } from "node:path";
import { createNullBackend } from "../../backends.ts";
import { CommunicationError } from "../../base/errors.ts";
import { suggestLearningRates } from "../../optim/schedules/index.ts";
import type { TrainConfig } from "../../train/config/index.ts";
import { readMetrics } from "../../train/metrics/index.ts";
import { runTraining } from "../../train/run.ts";
import { duration } from "../../train/view/text.ts";
import { withBackend } from "../backend.ts";
import type { TrainCommandOptions } from "../commands/train.ts";
import { shellCommand } from "../shell.ts";
import { localRanks } from "./local_ranks.ts";
import { mpiRanks } from "./mpi_ranks.ts";

/** Exit status of a run that Ctrl-C ended: 128 + SIGINT, as shells have it. */
const interruptedStatus = 130;

/** What a finished range test suggests; its metrics are in `output_dir`. */
function rangeTestVerdict(config: TrainConfig): string {
  const metrics = readMetrics(join(config.output_dir, "metrics.jsonl"));
  const { minimum, maximum, steepest, diverged } = suggestLearningRates(
    metrics.map(({ loss }) => loss),
    metrics.map(({ learning_rate }) => learning_rate),
  );
  const rate = (value: number): string => value.toExponential(2);
  const caution = diverged ? "" : " (the loss never turned: go on to higher rates for the true maximum)";
  return `range test: OneCycle from cycle_min_lr ${rate(minimum)} to cycle_max_lr ${rate(maximum)}, or a constant ${rate(steepest)}${caution}`;
}

/** Trains, and says how it ended and what to type next. */
export async function runTrain(options: TrainCommandOptions): Promise<void> {
  const launched = mpiRanks(options.ranks);
  const leads = launched?.lead ?? true;
  const controller = new AbortController();
  const interrupt = (): void => {
    // The second Ctrl-C does not wait for the step and the checkpoint.
    if (controller.signal.aborted) process.exit(interruptedStatus);
    controller.abort();
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    const backendOptions = {
      backend: "native",
      ...(options.trace === undefined || !leads ? {} : { trace: options.trace }),
    } as const;
    await withBackend(backendOptions, async (backend, trace) => {
      const { overrides, resume, ranks, maxRestarts, config: configPath } = options;
      const launcher = launched?.launcher(trace) ?? (ranks === 1 ? undefined : localRanks(ranks, trace));
      const { outcome, config } = await runTraining({
        configPath,
        overrides,
        resume,
        backend,
        planner: createNullBackend(),
        maximumRestarts: maxRestarts,
        signal: controller.signal,
        ...(launcher === undefined ? {} : { ranks: launcher }),
      });
      if (outcome.reason === "interrupted") process.exitCode = interruptedStatus;
      // Rank 0 speaks for all.
      if (!leads) return;
      const say = (line: string): boolean => process.stdout.write(`${line}\n`);
      const elapsed = duration(outcome.elapsedSeconds);
      if (outcome.reason === "interrupted") {
        say(`stopped after step ${outcome.step}; checkpoint: ${outcome.checkpoint}`);
        const sets = overrides.flatMap((override) => ["--set", override]);
        const many = ranks === 1 ? [] : ["--ranks", String(ranks)];
        say(
          `resume with: ${shellCommand(["slipstream", "train", configPath, ...sets, ...many, "--resume"])}`,
        );
        return;
      }
      const evaluation =
        outcome.evaluationLoss === undefined ? "" : `, evaluation loss ${outcome.evaluationLoss.toFixed(4)}`;
      say(`${outcome.step} steps in ${elapsed}: loss ${outcome.loss.toFixed(4)}${evaluation}`);
      if (config.stop_at_loss !== undefined) {
        const reached = outcome.reason === "reached_loss";
        say(
          reached
            ? `reached loss ${config.stop_at_loss} after ${elapsed}`
            : `did not reach loss ${config.stop_at_loss}`,
        );
      }
      if (config.scheduler.type === "LRRangeTest") say(rangeTestVerdict(config));
      say(`model:      ${outcome.model}`);
      say(`checkpoint: ${outcome.checkpoint}`);
      say(`metrics:    ${config.output_dir}/metrics.jsonl, ${config.output_dir}/loss.svg`);
      say(`next:       slipstream generate ${shellCommand([outcome.model ?? ""])} --prompt "..."`);
    });
  } catch (error) {
    // What ended all ranks is told once, by rank 0.
    if (leads || !(error instanceof CommunicationError)) throw error;
    process.exitCode = 1;
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}
