import { formatBytes } from "../../base/bytes.ts";
import type { ViewState } from "./state.ts";
import { columnsOf, cut, duration, grouped, printable, sparkline, wrap } from "./text.ts";

/** ANSI codes by what the text is. */
const styles = {
  title: "1",
  label: "2",
  value: "1",
  bar: "34",
  track: "2",
  curve: "36",
  activity: "33",
} as const;
type Style = keyof typeof styles;

/** A piece of a line in one style; plain without one. */
type Piece = readonly [text: string, style?: Style];

const narrow = 64;
const labelColumns = 11;

/**
 * The view as lines of at most `width` columns, without line ends. Below 64 columns every number has a
 * line of its own. Colours (ANSI codes, which take no columns) only where `color` is set.
 */
export function renderView(state: ViewState, width: number, color = false): string[] {
  const paint = (pieces: readonly Piece[]) => fit(pieces, width, color);
  const lines = [paint(titleLine(state, width)), paint(progressLine(state, width))];
  const loss: Piece[] = [
    ["loss".padEnd(labelColumns), "label"],
    [lossText(state.losses.at(-1)), "value"],
  ];
  const curve: Piece[] = [["  "], [sparkline(state.losses, Math.max(8, Math.min(40, width - 54))), "curve"]];
  const numbers = fieldsOf(state);
  if (width < narrow) {
    lines.push(paint([...loss, ["  "], [sparkline(state.losses, Math.max(0, width - 22)), "curve"]]));
    lines.push(
      ...numbers.map(([label, value]) =>
        paint([
          [label.padEnd(labelColumns), "label"],
          [value, "value"],
        ]),
      ),
    );
  } else {
    const [validation, ...rest] = numbers;
    lines.push(paint([...loss, ...curve, ["  "], ...field(validation!)]));
    for (let i = 0; i < rest.length; i += 3) {
      const columns = rest.slice(i, i + 3).map(field);
      const column = Math.floor((width + 1) / 3);
      lines.push(
        paint(
          columns.flatMap((pieces, index): Piece[] =>
            index === columns.length - 1
              ? pieces
              : [...pieces, [" ".repeat(Math.max(2, column - lengthOf(pieces)))]],
          ),
        ),
      );
    }
  }
  if (state.sample !== undefined) lines.push(...sampleLines(state.sample, width).map(paint));
  return lines;
}

/** One line about a step, for output that is no terminal. */
export function renderPlainLine(state: ViewState): string {
  const left = secondsLeft(state);
  const parts = [
    `step ${state.step}${state.totalSteps === undefined ? "" : `/${state.totalSteps}`}`,
    `loss ${lossText(state.losses.at(-1))}`,
    `learning rate ${state.learningRate.toExponential(2)}`,
    ...(state.gradientNorm === undefined ? [] : [`gradient norm ${state.gradientNorm.toFixed(2)}`]),
    `${grouped(state.tokensPerSecond)} tokens/s`,
    ...(state.modelFlopsUtilisation === undefined ? [] : [`MFU ${percent(state.modelFlopsUtilisation)}`]),
    formatBytes(state.memoryBytes),
    ...(state.lossScale === undefined ? [] : [`loss scale ${state.lossScale}`]),
    ...(left === undefined ? [] : [`${duration(left)} left`]),
  ];
  return parts.join("  ");
}

function titleLine(state: ViewState, width: number): Piece[] {
  const activity = state.activity ?? "";
  const title = cut(state.title, Math.max(1, width - (activity === "" ? 0 : activity.length + 2)));
  const gap = width - columnsOf(title) - columnsOf(activity);
  return [[title, "title"], [activity === "" ? "" : " ".repeat(Math.max(1, gap))], [activity, "activity"]];
}

function progressLine(state: ViewState, width: number): Piece[] {
  if (state.totalSteps === undefined) return [["step "], [grouped(state.step), "value"]];
  const fraction = Math.min(1, state.totalSteps === 0 ? 1 : state.step / state.totalSteps);
  const left = secondsLeft(state);
  const time = left === undefined ? "" : `, ${duration(left)} left`;
  const long = `  ${percent(fraction, 0)}  step ${grouped(state.step)} of ${grouped(state.totalSteps)}${time}`;
  const short = `  ${percent(fraction, 0)}${left === undefined ? "" : ` ${duration(left)}`}`;
  const text = long.length + 12 <= width ? long : short;
  const columns = Math.max(0, Math.min(60, width - text.length));
  const filled = Math.round(fraction * columns);
  return [["━".repeat(filled), "bar"], ["─".repeat(columns - filled), "track"], [text]];
}

/** The numbers of the view, the validation loss first. */
function fieldsOf(state: ViewState): [label: string, value: string][] {
  const { evaluation } = state;
  return [
    [
      "validation",
      evaluation === undefined
        ? "none yet"
        : `${lossText(evaluation.loss)} at step ${grouped(evaluation.step)}`,
    ],
    ["speed", `${grouped(state.tokensPerSecond)} tokens/s`],
    ...optional("MFU", state.modelFlopsUtilisation, percent),
    ["memory", formatBytes(state.memoryBytes)],
    ["rate", state.learningRate.toExponential(2)],
    ...optional("gradient", state.gradientNorm, (norm) => norm.toFixed(3)),
    ...optional("loss scale", state.lossScale, grouped),
  ];
}

function optional(
  label: string,
  value: number | undefined,
  format: (value: number) => string,
): [string, string][] {
  return value === undefined ? [] : [[label, format(value)]];
}

function field([label, value]: readonly [string, string]): Piece[] {
  return [
    [label.padEnd(labelColumns), "label"],
    [value, "value"],
  ];
}

function sampleLines(sample: { readonly prompt: string; readonly text: string }, width: number): Piece[][] {
  const text = printable(`${sample.prompt}${sample.text}`);
  const label = width < narrow ? 0 : labelColumns;
  return wrap(text, Math.max(1, width - label), 3).map((line, index) => [
    [label === 0 ? "" : (index === 0 ? "sample" : "").padEnd(label), "label"],
    [line],
  ]);
}

function secondsLeft(state: ViewState): number | undefined {
  if (state.totalSteps === undefined || !(state.stepSeconds > 0)) return undefined;
  return Math.max(0, state.totalSteps - state.step) * state.stepSeconds;
}

function lossText(loss: number | undefined): string {
  if (loss === undefined) return "none yet";
  return Number.isFinite(loss) ? loss.toFixed(4) : String(loss);
}

function percent(fraction: number, digits = 1): string {
  return `${(fraction * 100).toFixed(digits)}%`;
}

function lengthOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, [text]) => sum + columnsOf(text), 0);
}

/** The pieces as one line, cut to `width` columns. */
function fit(pieces: readonly Piece[], width: number, color: boolean): string {
  let room = width;
  let line = "";
  for (const [text, style] of pieces) {
    const shown = cut(text, room);
    room -= columnsOf(shown);
    line +=
      color && style !== undefined && shown !== "" ? `\u001b[${styles[style]}m${shown}\u001b[0m` : shown;
    if (shown !== text) break;
  }
  return line.trimEnd();
}
