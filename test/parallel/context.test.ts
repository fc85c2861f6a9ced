import { describe, expect, test } from "vitest";
import { symbolic } from "../../src/base/shape.ts";
import type { ContextPlan } from "../../src/parallel/context/context_parallel.ts";
import { type Problem, planOf, runBoth } from "./context_support.ts";

/** Attention over ranks, in lockstep and float64, against one rank's over all tokens. */
const plans: Record<string, ContextPlan> = {
  "ring of 2": planOf({ inner: 2 }),
  "ring of 4": planOf({ inner: 4 }),
  "striped over 2": planOf({ inner: 2, order: "striped" }),
  "striped over 4": planOf({ inner: 4, order: "striped" }),
  "burst over 2": planOf({ inner: 2, order: "striped", backward: "queries" }),
  "burst over 4": planOf({ inner: 4, backward: "queries" }),
  "double ring of 2 x 2": planOf({ outer: 2, inner: 2, order: "striped" }),
  "double ring, queries around": planOf({ outer: 2, inner: 2, backward: "queries" }),
  "double ring of 4 x 1": planOf({ outer: 4 }),
  "heads over 2": planOf({ head: 2 }),
  "heads over 4": planOf({ head: 4, order: "striped" }),
  "2 x 2, heads first": planOf({ head: 2, inner: 2, order: "striped" }),
  "2 x 2, context first": planOf({ head: 2, inner: 2, placement: "context_first" }),
  "2 x 2, least bytes": planOf({ head: 2, inner: 2, backward: "least" }),
  "2 heads x (2 x 2)": planOf({ head: 2, outer: 2, inner: 2, placement: "context_first", order: "striped" }),
};

const attributes = { scale: 0.4, causal: true, window: 0 };
const problems: Record<string, Problem> = {
  "one sequence": { offsets: [0, 24], heads: 4, groups: 4, size: 3, attributes },
  "packed sequences, grouped heads": {
    offsets: [0, 5, 5, 6, 19, 32],
    heads: 4,
    groups: 2,
    size: 2,
    attributes,
  },
  "one key/value head, a window": {
    offsets: [0, 7, 40],
    heads: 4,
    groups: 1,
    size: 2,
    attributes: { ...attributes, window: 9 },
  },
  "not causal": {
    offsets: [0, 16],
    heads: 4,
    groups: 4,
    size: 2,
    attributes: { ...attributes, causal: false },
  },
};

function expectSame({ whole, joined }: ReturnType<typeof runBoth>): void {
  expect([...joined.keys()]).toEqual(["out", "dq", "dk", "dv"]);
  for (const [name, { values }] of whole) {
    const actual = joined.get(name)!;
    values.forEach((value, i) => {
      expect(Math.abs(actual[i]! - value), `${name}[${i}]`).toBeLessThan(1e-10);
    });
  }
}

describe.each(Object.keys(plans))("%s", (name) => {
  test.each(Object.keys(problems))("gives what one rank gives: %s", (problem) => {
    expectSame(runBoth(problems[problem]!, plans[name]!));
  });
});

test.each(["ring of 4", "striped over 4", "2 x 2, context first"])(
  "%s: one program serves batches of any length",
  (name) => {
    const dimension = symbolic("tokens", 16);
    for (const tokens of [1, 6, 16]) {
      const problem = { ...problems["one sequence"]!, offsets: [0, 2 * tokens, 4 * tokens] };
      expectSame(runBoth(problem, plans[name]!, { dimension, value: tokens }));
    }
  },
);
