/** What is measured at one optimizer update; a line of `metrics.jsonl`. */
export interface StepMetrics {
  /** Updates done, this one included: 1 for the first. */
  readonly step: number;
  /** Mean training loss of the step's tokens, in nats. */
  readonly loss: number;
  readonly learning_rate: number;
  /** Norm of the whole gradient before clipping. */
  readonly gradient_norm: number;
  /** Tokens trained on since the run began, this step's included. */
  readonly tokens: number;
  readonly tokens_per_second: number;
  readonly step_seconds: number;
  /** Resident memory of the process. */
  readonly memory_bytes: number;
  /** Mean loss on the validation data, where this step evaluated. */
  readonly evaluation_loss?: number | undefined;
  /** Model FLOPs over the machine's peak, 0 to 1. */
  readonly model_flops_utilisation?: number | undefined;
  /** The loss scale of fp16. */
  readonly loss_scale?: number | undefined;
  /** Updates that loss scaling has skipped so far. */
  readonly skipped_steps?: number | undefined;
  /** The momentum, where the schedule cycles it. */
  readonly momentum?: number | undefined;
  /** Passes over the data so far, with the fraction of the current one. */
  readonly epoch?: number | undefined;
  /** Seconds of training since the run began, pauses between resumed sessions left out. */
  readonly elapsed_seconds?: number | undefined;
}

/** Where metrics go. */
export interface MetricsSink {
  /** Takes the metrics of one step; steps come in order. */
  record(metrics: StepMetrics): void;
  /** Brings everything recorded to its file, durably; called at evaluations and checkpoints. */
  flush(): void;
  /** Flushes and lets go of the file. Nothing may be recorded afterwards. */
  close(): void;
}

/** One sink that hands everything to several. All are closed even where one of them fails. */
export function combineSinks(sinks: readonly MetricsSink[]): MetricsSink {
  return {
    record: (metrics) => {
      for (const sink of sinks) sink.record(metrics);
    },
    flush: () => {
      for (const sink of sinks) sink.flush();
    },
    close: () => {
      const failures: unknown[] = [];
      for (const sink of sinks) {
        try {
          sink.close();
        } catch (failure) {
          failures.push(failure);
        }
      }
      if (failures.length > 0) throw failures[0];
    },
  };
}
