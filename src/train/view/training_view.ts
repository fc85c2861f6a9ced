import { environmentVariables, readVariable } from "../../base/environment.ts";
import { createLiveView } from "./live_view.ts";
import { createPlainView } from "./plain_view.ts";
import type { TrainingView, ViewStream } from "./state.ts";

/**
 * The view of a training: redrawn in place on a terminal, and one line for every `stepsPerPrint` steps
 * where the output is a file, a pipe, or a terminal that cannot move its cursor (`TERM=dumb`).
 */
export function createTrainingView(stepsPerPrint: number, stream: ViewStream = process.stdout): TrainingView {
  const redraws = stream.isTTY === true && readVariable(environmentVariables.terminal) !== "dumb";
  return redraws ? createLiveView(stream) : createPlainView(stepsPerPrint, stream);
}
