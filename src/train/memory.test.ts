import { totalmem } from "node:os";
import { expect, test } from "vitest";
import { memoryLimit, requireMemory } from "./memory.ts";

const states = { what: "weights", bytes: 3 * 2 ** 30, hint: "make the model smaller" };
const activations = { what: "activations", bytes: 5 * 2 ** 30, hint: "lower the batch size" };

test("the limit is at most the machine's memory", () => {
  expect(memoryLimit()).toBeGreaterThan(2 ** 20);
  expect(memoryLimit()).toBeLessThanOrEqual(totalmem());
});

test("what fits is let through, to the byte", () => {
  expect(() => requireMemory([states, activations], 8 * 2 ** 30)).not.toThrow();
  expect(() => requireMemory([states, activations], 8 * 2 ** 30 - 1)).toThrow("does not fit in memory");
});

test("what does not fit is listed, with what to do about the largest part", () => {
  expect(() => requireMemory([states, activations], 6 * 2 ** 30)).toThrow(
    [
      "the run does not fit in memory",
      "  expected: at most 6 GiB, which this machine has",
      "  received: 8 GiB: 3 GiB of weights, 5 GiB of activations",
      "  to do:    lower the batch size",
    ].join("\n"),
  );
});
