import { expect, test } from "vitest";
import { formatBar, formatBars, formatCase, formatValue } from "./format.ts";
import { busyWarning } from "./machine.ts";
import { bar, figure, spreadOf, type Unit } from "./measurement.ts";

test("median and the middle eighty per cent, between neighbours where they fall between", () => {
  const values = [10, 2, 3, 4, 5, 6, 7, 8, 9, 1, 11];
  expect(spreadOf(values)).toEqual({ median: 6, low: 2, high: 10, count: 11 });
  expect(spreadOf([1, 2]).median).toBe(1.5);
  expect(spreadOf([7])).toEqual({ median: 7, low: 7, high: 7, count: 1 });
});

test.each([
  ["at least", 0.45, "met"],
  ["at least", 0.46, "missed"],
  ["at most", 0.45, "met"],
  ["at most", 0.44, "missed"],
] as const)("0.45 must be %s %d: %s", (direction, bound, status) => {
  expect(bar("share", "share", direction, bound, 0.45).status).toBe(status);
});

test("what could not be measured is neither met nor missed, and says why", () => {
  const unknown = bar(
    "speed against PyTorch",
    "ratio",
    "at least",
    1.5,
    undefined,
    "PyTorch was not measured",
  );
  expect(unknown.status).toBe("not measured");
  expect("value" in unknown).toBe(false);
  expect(formatBar(unknown)).toBe(
    "not measured speed against PyTorch, at least 1.50x (PyTorch was not measured)",
  );
});

test.each<[Unit, number, string]>([
  ["seconds", 1.5, "1.50 s"],
  ["seconds", 0.0241, "24.1 ms"],
  ["seconds", 0.000_25, "250 µs"],
  ["FLOP/s", 4.2e11, "420 GFLOP/s"],
  ["bytes", 3 * 2 ** 20, "3.00 MiB"],
  ["bytes/s", 35.7e9, "35.7 GB/s"],
  ["tokens/s", 1234.5, "1235 tokens/s"],
  ["ratio", 2.817, "2.82x"],
  ["share", 0.318, "31.8%"],
  ["nats", 8.41, "8.41 nats"],
  ["count", 12, "12"],
])("%s %d is printed as %s", (unit, value, text) => {
  expect(formatValue(unit, value)).toBe(text);
});

test("a case is its name, its figures with their spread, its bars and its notes", () => {
  const text = formatCase({
    name: "bf16 1024",
    figures: [
      figure("time", "seconds", spreadOf([0.002, 0.003, 0.004])),
      figure("of the peak", "share", 0.5),
    ],
    bars: [bar("bf16 1024: share", "share", "at least", 0.45, 0.5)],
    notes: ["the BLAS is slow"],
  });
  expect(text).toBe(
    [
      "bf16 1024",
      "    time 3.00 ms (2.20 to 3.80, 3 runs)",
      "    of the peak 50.0%",
      "  met          bf16 1024: share, at least 45.0%: 50.0%",
      "    note: the BLAS is slow",
    ].join("\n"),
  );
});

test("the summary counts the bars that are met", () => {
  const bars = [bar("a", "ratio", "at least", 1, 2), bar("b", "ratio", "at least", 3, 2)];
  expect(formatBars(bars).split("\n")).toEqual([
    "1 of 2 bars met",
    "  met          a, at least 1.00x: 2.00x",
    "  missed       b, at least 3.00x: 2.00x",
  ]);
  expect(formatBars([])).toContain("no bars");
});

test("a busy machine is warned of", () => {
  expect(busyWarning(0.1, 2)).toBeUndefined();
  expect(busyWarning(1.5, 2)).toContain("1.50 processes were running on its 2 cores");
  // Many cores do not make a loaded machine quiet.
  expect(busyWarning(1.5, 64)).toBeDefined();
});
