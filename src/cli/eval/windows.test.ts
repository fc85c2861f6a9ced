import { expect, test } from "vitest";
import { parseIdsFile } from "./run.ts";
import { batchWindows, cutWindows } from "./windows.ts";

test("a document is cut into consecutive windows, without a last one that predicts nothing", () => {
  expect(cutWindows([1, 2, 3, 4, 5], 3)).toEqual([
    [1, 2, 3],
    [4, 5],
  ]);
  expect(cutWindows([1, 2, 3, 4], 3)).toEqual([[1, 2, 3]]);
  expect(cutWindows([1, 2], 100)).toEqual([[1, 2]]);
  expect(cutWindows([1], 100)).toEqual([]);
  expect(cutWindows([], 100)).toEqual([]);
});

test("batches keep the order and the budget", () => {
  const windows = [
    [1, 2, 3],
    [4, 5, 6],
    [7, 8],
    [9, 10, 11],
  ];
  expect([...batchWindows(windows, 6)]).toEqual([
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    [
      [7, 8],
      [9, 10, 11],
    ],
  ]);
  expect([...batchWindows(windows, 3)].length).toBe(4);
  expect([...batchWindows([], 3)]).toEqual([]);
});

test("files of ids hold one document or several", () => {
  expect(parseIdsFile("[1, 2, 3]", "x.json")).toEqual([[1, 2, 3]]);
  expect(parseIdsFile("[[1, 2], [3]]", "x.json")).toEqual([[1, 2], [3]]);
  expect(() => parseIdsFile('{"ids": [1]}', "x.json")).toThrow(
    "does not hold lists of token ids\n  where:    x.json",
  );
  expect(() => parseIdsFile('[1, "a"]', "x.json")).toThrow("does not hold lists of token ids");
  expect(() => parseIdsFile("[1, 2", "x.json")).toThrow("is not JSON");
});
