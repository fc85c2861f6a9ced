import { renderView } from "./render.ts";
import type { TrainingView, ViewState, ViewStream } from "./state.ts";
import { columnsOf } from "./text.ts";

const hideCursor = "\u001b[?25l";
const showCursor = "\u001b[?25h";
const eraseLine = "\u001b[K";
const eraseBelow = "\u001b[J";
const millisecondsBetweenDraws = 100;
const endingSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * A view that is redrawn in place below what was printed before. The cursor is hidden meanwhile and comes
 * back at `close`, at the end of the process, and where a signal ends it. `now` (milliseconds) is for tests.
 */
export function createLiveView(
  stream: ViewStream,
  now: () => number = () => performance.now(),
): TrainingView {
  const color = stream.hasColors?.(16) ?? false;
  let state: ViewState | undefined;
  let drawn: readonly string[] = [];
  let drawnAt = -Infinity;
  let open = true;

  const width = () => Math.max(1, (stream.columns ?? 80) - 1);
  /** Moves to the first row of what is drawn, which takes more rows where the terminal became narrower. */
  const toTop = () => {
    const columns = Math.max(1, stream.columns ?? 80);
    const rows = drawn.reduce(
      (sum, line) => sum + Math.max(1, Math.ceil(columnsOf(withoutCodes(line)) / columns)),
      0,
    );
    return rows === 0 ? "" : `\u001b[${rows}A\r`;
  };
  const draw = (before = "") => {
    const top = toTop();
    const most = Math.max(1, (stream.rows ?? 24) - 1);
    drawn = state === undefined ? [] : renderView(state, width(), color).slice(0, most);
    const body = drawn.map((line) => `${line}${eraseLine}\n`).join("");
    stream.write(`${hideCursor}${top}${before}${body}${eraseBelow}`);
    drawnAt = now();
  };
  const redraw = () => draw();
  const restore = () => {
    if (open) stream.write(showCursor);
  };
  const onSignal = (signal: NodeJS.Signals) => {
    restore();
    // Where nobody else handles the signal, it must end the process as it would have without this view.
    if (process.listenerCount(signal) > 1) return;
    process.removeListener(signal, onSignal);
    process.kill(process.pid, signal);
  };

  stream.on?.("resize", redraw);
  process.on("exit", restore);
  for (const signal of endingSignals) process.on(signal, onSignal);
  return {
    update(next) {
      state = next;
      if (open && now() - drawnAt >= millisecondsBetweenDraws) draw();
    },
    note(line) {
      if (open)
        draw(
          line
            .split("\n")
            .map((each) => `${each}${eraseLine}\n`)
            .join(""),
        );
      else stream.write(`${line}\n`);
    },
    close() {
      if (!open) return;
      draw();
      restore();
      open = false;
      stream.off?.("resize", redraw);
      process.removeListener("exit", restore);
      for (const signal of endingSignals) process.removeListener(signal, onSignal);
    },
  };
}

function withoutCodes(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ANSI codes open with the escape character
  return line.replaceAll(/\u001b\[[0-9;]*m/g, "");
}
