import { renderPlainLine } from "./render.ts";
import type { TrainingView, ViewState } from "./state.ts";
import { printable } from "./text.ts";

/** A view of plain lines: every `stepsPerPrint` steps, the first and the last, evaluations and samples. */
export function createPlainView(
  stepsPerPrint: number,
  stream: { write(text: string): unknown },
): TrainingView {
  let last: ViewState | undefined;
  let printed = -1;
  const print = (line: string) => stream.write(`${line}\n`);
  const printStep = (state: ViewState) => {
    if (state.step === printed) return;
    printed = state.step;
    print(renderPlainLine(state));
  };
  return {
    update(state) {
      if (last === undefined) print(state.title);
      if (state.losses.length > 0 && (last === undefined || state.step % stepsPerPrint === 0))
        printStep(state);
      if (state.evaluation !== undefined && state.evaluation.step !== last?.evaluation?.step) {
        print(`step ${state.evaluation.step}  validation loss ${state.evaluation.loss.toFixed(4)}`);
      }
      const sample = sampleText(state);
      if (sample !== undefined && sample !== (last && sampleText(last)))
        print(`sample: ${printable(sample)}`);
      last = state;
    },
    note: print,
    close() {
      if (last !== undefined && last.losses.length > 0) printStep(last);
    },
  };
}

function sampleText({ sample }: ViewState): string | undefined {
  return sample === undefined ? undefined : `${sample.prompt}${sample.text}`;
}
