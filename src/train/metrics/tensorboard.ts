import { mkdirSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { encodeRecord, type TensorBoardEvent } from "./event_encoding.ts";
import { openForAppending, writing } from "./files.ts";
import type { MetricsSink, StepMetrics } from "./sink.ts";

/** The tag of each metric; TensorBoard groups by the part before the slash. */
const tags = {
  loss: "train/loss",
  evaluation_loss: "evaluation/loss",
  learning_rate: "train/learning_rate",
  gradient_norm: "train/gradient_norm",
  momentum: "train/momentum",
  loss_scale: "train/loss_scale",
  skipped_steps: "train/skipped_steps",
  epoch: "train/epoch",
  tokens: "progress/tokens",
  elapsed_seconds: "progress/elapsed_seconds",
  tokens_per_second: "speed/tokens_per_second",
  step_seconds: "speed/step_seconds",
  model_flops_utilisation: "speed/model_flops_utilisation",
  memory_bytes: "speed/memory_bytes",
} as const satisfies Record<Exclude<keyof StepMetrics, "step">, string>;

/**
 * A TensorBoard event file in `folder`, which is made where it is missing; every session writes a file of
 * its own. With `resumeAfter`, TensorBoard drops what earlier files say about later steps.
 */
export function createTensorBoardLog(folder: string, resumeAfter?: number): MetricsSink {
  writing(folder, () => mkdirSync(folder, { recursive: true }));
  const now = () => Date.now() / 1000;
  // TensorBoard reads files in the order of their names, which open with the time.
  const name = `events.out.tfevents.${String(Date.now()).padStart(14, "0")}.${hostname()}.${process.pid}`;
  const file = openForAppending(join(folder, name), "create");
  const write = (event: TensorBoardEvent) => file.append(encodeRecord(event));
  write({ wallTime: now(), fileVersion: "brain.Event:2" });
  if (resumeAfter !== undefined) write({ wallTime: now(), step: resumeAfter + 1, sessionStart: true });
  return {
    ...file,
    record: (metrics) => write({ wallTime: now(), step: metrics.step, scalars: scalarsOf(metrics) }),
  };
}

function scalarsOf(metrics: StepMetrics): Record<string, number> {
  const scalars: Record<string, number> = {};
  for (const [name, tag] of Object.entries(tags)) {
    const value = metrics[name as keyof typeof tags];
    if (value !== undefined) scalars[tag] = value;
  }
  return scalars;
}
