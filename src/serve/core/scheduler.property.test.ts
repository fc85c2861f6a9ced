import fc from "fast-check";
import { expect, test } from "vitest";
import { ServingSimulation, type SimulatedRequest } from "../../../test/support/serving_simulation.ts";
import type { StepPlan } from "./index.ts";

/** Beginnings that prompts have in common. */
const beginnings = [
  [],
  Array.from({ length: 7 }, (_, index) => index % 3),
  Array.from({ length: 33 }, (_, index) => index % 5),
  Array.from({ length: 70 }, (_, index) => index % 5),
];

const prompt = fc
  .tuple(fc.constantFrom(...beginnings), fc.array(fc.nat(2), { minLength: 1, maxLength: 20, size: "max" }))
  .map(([beginning, rest]) => [...beginning, ...rest]);

const request = fc.record({
  prompt,
  answers: fc.oneof(
    { weight: 3, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.integer({ min: 2, max: 4 }) },
  ),
  maximumTokens: fc.integer({ min: 1, max: 24 }),
  priority: fc.integer({ min: -1, max: 1 }),
  tenant: fc.constantFrom("a", "b", "c"),
  cacheSalt: fc.constantFrom("x", "y"),
  stopAfter: fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 4 }),
});

type Event =
  | { readonly kind: "add"; readonly request: Omit<SimulatedRequest, "id"> }
  | { readonly kind: "abort" | "finish"; readonly which: number; readonly inFlight: boolean }
  | { readonly kind: "step" | "fail" | "preempt" | "reset" };

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("add" as const), request }) },
  { weight: 8, arbitrary: fc.constant({ kind: "step" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "fail" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "preempt" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "reset" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom("abort" as const, "finish" as const),
      which: fc.nat(20),
      inFlight: fc.boolean(),
    }),
  },
);

const options = fc
  .record({
    policy: fc.constantFrom("splitfuse" as const, "prefill-first" as const),
    blockSize: fc.constantFrom(1, 3, 16, 64),
    /** Tokens that the pool holds, rounded up to blocks: some prompts alone fill it. */
    room: fc.integer({ min: 64, max: 400 }),
    maximumSequences: fc.integer({ min: 1, max: 8 }),
    budgetAbove: fc.integer({ min: 0, max: 40 }),
    mixedTokenBudget: fc.integer({ min: 1, max: 60 }),
    maximumWaiting: fc.integer({ min: 0, max: 20 }),
    maximumContext: fc.integer({ min: 40, max: 120 }),
    prefixCaching: fc.boolean(),
  })
  .map(({ room, budgetAbove, ...rest }) => ({
    ...rest,
    blocks: Math.ceil(room / rest.blockSize),
    tokenBudget: rest.maximumSequences + budgetAbove,
  }));

/** Plays events and drains, and compares the lengths of all answers with those due: none for one that was cut. */
function play(simulation: ServingSimulation, events: readonly Event[]): void {
  const due = new Map<string, number[]>();
  const cut = (id: number): void => {
    const sequence = simulation.live.get(id);
    if (sequence === undefined) return;
    due.get(sequence.request)![sequence.answer] = 0;
  };
  const end = (kind: "abort" | "finish", which: number): void => {
    const live = [...simulation.live.values()];
    if (live.length === 0) return;
    const chosen = live[which % live.length]!;
    if (kind === "finish") {
      cut(chosen.sequence);
      simulation.finish(chosen.sequence);
    } else {
      for (const { sequence } of live.filter((other) => other.request === chosen.request)) cut(sequence);
      simulation.abort(chosen.request);
    }
    simulation.scheduler.check();
  };
  let ending: { kind: "abort" | "finish"; which: number } | undefined;
  const run = (complete: (plan: StepPlan) => void): void => {
    const plan = simulation.plan();
    if (ending !== undefined) end(ending.kind, ending.which);
    ending = undefined;
    complete(plan);
  };
  events.forEach((each, index) => {
    switch (each.kind) {
      case "add": {
        const id = `r${index}`;
        const added = simulation.add({ id, ...each.request });
        if ("sequences" in added) {
          due.set(
            id,
            added.sequences.map(({ sequence }) => simulation.live.get(sequence)!.due),
          );
        }
        break;
      }
      case "abort":
      case "finish":
        if (each.inFlight) ending = each;
        else end(each.kind, each.which);
        break;
      case "step":
        run((plan) => simulation.complete(plan));
        break;
      case "fail":
        run((plan) => simulation.fail(plan));
        break;
      case "preempt":
        simulation.preemptLatest();
        simulation.scheduler.check();
        break;
      case "reset":
        simulation.scheduler.resetPrefixCache();
        simulation.scheduler.check();
        break;
      default:
        each satisfies never;
    }
  });
  simulation.drain();
  for (const [id, lengths] of due) {
    const answers = simulation.finished.get(id) ?? [];
    expect(lengths.map((_, answer) => answers[answer]?.length ?? 0)).toEqual(lengths);
  }
}

test("whatever comes, every step reads the right tokens and everyone gets all that is due", () => {
  const seen = { preemptions: 0, prefixHits: 0, copies: 0, answered: 0 };
  fc.assert(
    fc.property(options, fc.array(event, { maxLength: 60, size: "max" }), (limits, events) => {
      const simulation = new ServingSimulation(limits, (_, answer, place) => (place * 7 + answer) % 3);
      play(simulation, events);
      const { preemptions, prefixHits } = simulation.scheduler.statistics;
      seen.preemptions += preemptions;
      seen.prefixHits += prefixHits;
      seen.copies += simulation.copies.length;
      seen.answered += simulation.finished.size;
    }),
    { numRuns: 300 },
  );
  // The events reach what they are to test.
  expect(seen.preemptions).toBeGreaterThan(50);
  expect(seen.prefixHits).toBeGreaterThan(500);
  expect(seen.copies).toBeGreaterThan(50);
  expect(seen.answered).toBeGreaterThan(300);
});

test("a pool that a single request fills still serves many, by either policy", () => {
  const limits = fc.record({
    policy: fc.constantFrom("splitfuse" as const, "prefill-first" as const),
    blockSize: fc.constantFrom(1, 4),
    prefixCaching: fc.boolean(),
  });
  const lengths = fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 4 })), {
    minLength: 2,
    maxLength: 10,
  });
  let preemptions = 0;
  fc.assert(
    fc.property(limits, lengths, (chosen, requests) => {
      const simulation = new ServingSimulation({
        ...chosen,
        blocks: 40 / chosen.blockSize,
        maximumContext: 41,
        maximumSequences: 4,
        tokenBudget: 8,
      });
      play(
        simulation,
        requests.map(([length, answers]) => ({
          kind: "add" as const,
          request: { prompt: Array.from({ length }, (_, index) => index % 2), answers, maximumTokens: 100 },
        })),
      );
      preemptions += simulation.scheduler.statistics.preemptions;
    }),
    { numRuns: 40 },
  );
  expect(preemptions).toBeGreaterThan(40);
});
