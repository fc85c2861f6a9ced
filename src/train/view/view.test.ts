import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createLiveView } from "./live_view.ts";
import { createPlainView } from "./plain_view.ts";
import { renderView } from "./render.ts";
import type { ViewState } from "./state.ts";
import { columnsOf, cut, duration, printable, sparkline, wrap } from "./text.ts";

const state: ViewState = {
  title: "llama 30M on moby-dick.txt",
  step: 60,
  totalSteps: 400,
  losses: [8, 6, 4, 2.3456],
  learningRate: 6e-4,
  gradientNorm: 0.8125,
  tokensPerSecond: 18_432.4,
  modelFlopsUtilisation: 0.342,
  memoryBytes: 812 * 2 ** 20,
  stepSeconds: 0.5,
  evaluation: { step: 50, loss: 2.5 },
  sample: { prompt: "Call me", text: " Ishmael." },
};

describe("renderView", () => {
  it("shows every number on a wide terminal", () => {
    expect(renderView(state, 90)).toEqual([
      "llama 30M on moby-dick.txt",
      // 60 of 400 is 15%; 340 steps of half a second are 170 s; the text takes 34 of the 90 columns; 0.15 x 56 = 8.4 are filled.
      `${"━".repeat(8)}${"─".repeat(48)}  15%  step 60 of 400, 2m 50s left`,
      // (6 - 2.3456) / (8 - 2.3456) x 7 = 4.5 and (4 - 2.3456) / 5.6544 x 7 = 2.05.
      "loss       2.3456  █▆▃▁  validation 2.5000 at step 50",
      "speed      18,432 tokens/s    MFU        34.2%              memory     812 MiB",
      "rate       6.00e-4            gradient   0.813",
      "sample     Call me Ishmael.",
    ]);
  });

  it("gives each number a line of its own on a narrow one", () => {
    expect(renderView(state, 30)).toEqual([
      "llama 30M on moby-dick.txt",
      "━━━───────────────  15% 2m 50s",
      "loss       2.3456  █▆▃▁",
      "validation 2.5000 at step 50",
      "speed      18,432 tokens/s",
      "MFU        34.2%",
      "memory     812 MiB",
      "rate       6.00e-4",
      "gradient   0.813",
      "Call me Ishmael.",
    ]);
  });

  it("has neither bar nor time left where the end is not known, and names a loss that is not finite", () => {
    const lines = renderView({ ...state, totalSteps: undefined, losses: [Number.NaN] }, 90);
    expect(lines[1]).toBe("step 60");
    expect(lines[2]).toContain("loss       NaN");
  });

  it("puts what goes on at the right edge", () => {
    expect(renderView({ ...state, activity: "evaluating" }, 70)[0]).toBe(
      `${state.title}${" ".repeat(70 - 26 - 10)}evaluating`,
    );
  });

  it("colours only where it is asked to", () => {
    const code = "\u001b[";
    expect(renderView(state, 90).join("")).not.toContain(code);
    const colored = renderView(state, 90, true).join("\n");
    expect(colored).toContain(`${code}34m━━━━━━━━${code}0m`);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: ANSI codes open with the escape character
    expect(colored.replaceAll(/\u001b\[\d+m/g, "")).toBe(renderView(state, 90).join("\n"));
  });

  it("never exceeds the width, whatever it shows", () => {
    const anything = fc.record({
      width: fc.integer({ min: 1, max: 200 }),
      title: fc.string({ unit: "grapheme" }),
      text: fc.string({ unit: "grapheme", maxLength: 300 }),
      step: fc.nat(),
      totalSteps: fc.option(fc.nat(), { nil: undefined }),
      losses: fc.array(fc.double(), { maxLength: 300 }),
      speed: fc.double(),
    });
    fc.assert(
      fc.property(anything, ({ width, title, text, step, totalSteps, losses, speed }) => {
        const shown = { ...state, title: printable(title), step, totalSteps, losses, tokensPerSecond: speed };
        for (const line of renderView({ ...shown, sample: { prompt: "", text } }, width)) {
          expect(columnsOf(line)).toBeLessThanOrEqual(width);
          expect(line).not.toContain("\n");
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("text", () => {
  it("counts and cuts by columns", () => {
    expect(columnsOf("aé鯨👍")).toBe(6);
    expect(cut("鯨鯨鯨", 5)).toBe("鯨鯨…");
    expect(cut("鯨鯨鯨", 4)).toBe("鯨…");
    expect(cut("whale", 5)).toBe("whale");
    expect(wrap("the white whale swam", 10, 3)).toEqual(["the white", "whale swam"]);
    expect(wrap("the white whale swam away", 10, 2)).toEqual(["the white", "whale swa…"]);
    expect(wrap("abcdefghijklmnop", 6, 9)).toEqual(["abcdef", "ghijkl", "mnop"]);
  });

  it("disarms what a model writes", () => {
    expect(printable("a\n\tb\u001b[2Jc\u0007\u202ed")).toBe("a b[2Jcd");
  });

  it("says durations", () => {
    expect([0.4, 59.4, 60, 245, 3600, 11_220, 187_200, Infinity].map(duration)).toEqual([
      "0s",
      "59s",
      "1m 00s",
      "4m 05s",
      "1h 00m",
      "3h 07m",
      "2d 4h",
      "?",
    ]);
  });

  it("draws curves", () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)).toBe("▁▂▃▄▅▆▇█");
    expect(sparkline([0, 2, 7, 7], 2)).toBe("▁█");
    expect(sparkline([1, Number.NaN, 1], 3)).toBe("▁×▁");
    expect(sparkline([], 5)).toBe("");
  });
});

/** A terminal that knows the few codes that the view writes. */
function fakeTerminal(columns: number) {
  let screen: string[] = [""];
  let row = 0;
  let column = 0;
  let cursor = true;
  const listeners = new Set<() => void>();
  const put = (character: string) => {
    const line = screen[row]!.padEnd(column);
    screen[row] = line.slice(0, column) + character + line.slice(column + 1);
    column++;
  };
  return {
    isTTY: true,
    columns,
    rows: 24,
    on: (_event: "resize", listener: () => void) => listeners.add(listener),
    off: (_event: "resize", listener: () => void) => listeners.delete(listener),
    write(text: string) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: ANSI codes open with the escape character
      for (const [token, count, code] of text.matchAll(/\u001b\[\??(\d*)([A-Za-z])|[\s\S]/g)) {
        if (token === "\n") {
          row++;
          column = 0;
          if (row === screen.length) screen.push("");
        } else if (token === "\r") column = 0;
        else if (code === undefined) put(token);
        else if (code === "A") row -= Number(count);
        else if (code === "K") screen[row] = screen[row]!.slice(0, column);
        else if (code === "J") screen = [...screen.slice(0, row), screen[row]!.slice(0, column)];
        else cursor = code === "h";
      }
    },
    /** Narrows the terminal: what does not fit flows onto further rows. */
    narrow(width: number) {
      this.columns = width;
      screen = screen.flatMap((line) => line.match(new RegExp(`.{1,${width}}`, "gu")) ?? [""]);
      row = screen.length - 1;
      for (const listener of listeners) listener();
    },
    lines: () => screen,
    cursorShown: () => cursor,
    listeners: () => listeners.size,
  };
}

describe("the live view", () => {
  it("redraws in place, below the notes, and gives the terminal back", () => {
    const terminal = fakeTerminal(91);
    let time = 0;
    const view = createLiveView(terminal, () => time);
    const signals = process.listenerCount("SIGTERM");
    view.note("data: 1 file");
    time += 1000;
    view.update({ ...state, step: 10, sample: undefined });
    time += 1000;
    view.update(state);
    expect(terminal.lines()).toEqual(["data: 1 file", ...renderView(state, 90), ""]);
    expect(terminal.cursorShown()).toBe(false);
    view.note("checkpoint saved\nand another line");
    expect(terminal.lines()).toEqual([
      "data: 1 file",
      "checkpoint saved",
      "and another line",
      ...renderView(state, 90),
      "",
    ]);
    view.close();
    expect(terminal.cursorShown()).toBe(true);
    expect(terminal.listeners()).toBe(0);
    expect(process.listenerCount("SIGTERM")).toBe(signals - 1);
  });

  it("draws ten times a second at most, and the last state at the end", () => {
    const terminal = fakeTerminal(91);
    let time = 0;
    const view = createLiveView(terminal, () => time);
    view.update({ ...state, step: 1 });
    time = 50;
    view.update({ ...state, step: 2 });
    expect(terminal.lines()[1]).toContain("step 1 of 400");
    view.close();
    expect(terminal.lines()[1]).toContain("step 2 of 400");
  });

  it("leaves nothing behind when the terminal becomes narrower", () => {
    const terminal = fakeTerminal(91);
    const view = createLiveView(terminal, () => 0);
    view.note("data: 1 file");
    view.update(state);
    view.note("started");
    terminal.narrow(41);
    expect(terminal.lines()).toEqual(["data: 1 file", "started", ...renderView(state, 40), ""]);
    view.close();
  });
});

describe("the plain view", () => {
  it("prints the first step, every n-th and the last, evaluations and samples once", () => {
    const lines: string[] = [];
    const view = createPlainView(10, { write: (text) => lines.push(text) });
    for (let step = 1; step <= 22; step++) {
      view.update({
        ...state,
        step,
        evaluation: step < 20 ? undefined : { step: 20, loss: 2.5 },
        sample: step < 21 ? undefined : { ...state.sample! },
      });
      if (step === 15) view.note("checkpoint saved");
    }
    view.close();
    view.close();
    expect(lines.join("")).toBe(
      [
        "llama 30M on moby-dick.txt",
        plain(1, "3m 20s"),
        plain(10, "3m 15s"),
        "checkpoint saved",
        plain(20, "3m 10s"),
        "step 20  validation loss 2.5000",
        "sample: Call me Ishmael.",
        plain(22, "3m 09s"),
        "",
      ].join("\n"),
    );
  });
});

function plain(step: number, left: string): string {
  return `step ${step}/400  loss 2.3456  learning rate 6.00e-4  gradient norm 0.81  18,432 tokens/s  MFU 34.2%  812 MiB  ${left} left`;
}
