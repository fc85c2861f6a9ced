import { describe, expect, test } from "vitest";
import { ServingSimulation } from "../../../test/support/serving_simulation.ts";
import { ConfigError, InternalError } from "../../base/errors.ts";
import { type CoreRequest, Scheduler, type StepPlan } from "./index.ts";

/** `length` tokens that no other `seed` begins with. */
function text(length: number, seed = 0): number[] {
  return Array.from({ length }, (_, index) => 1000 * seed + index);
}

function request(id: string, prompt: readonly number[], rest: Partial<CoreRequest> = {}): CoreRequest {
  return { id, prompt, answers: 1, maximumTokens: 1, ...rest };
}

/** The requests and numbers of tokens of a plan's chunks. */
function shape(plan: StepPlan): [string, number][] {
  return plan.chunks.map(({ request: id, tokens }) => [id, tokens.length]);
}

describe("filling steps", () => {
  test("decodes first, then pieces of prompts up to the budget", () => {
    const simulation = new ServingSimulation({ tokenBudget: 8 });
    simulation.add(request("a", text(4, 1), { maximumTokens: 9 }));
    expect(shape(simulation.step())).toEqual([["a", 4]]);
    simulation.add(request("b", text(10, 2), { maximumTokens: 9 }));
    simulation.add(request("c", text(3, 3)));
    const second = simulation.step();
    expect(shape(second)).toEqual([
      ["a", 1],
      ["b", 7],
    ]);
    expect(second.chunks.map(({ start, samples }) => [start, samples])).toEqual([
      [4, [0]],
      [0, []],
    ]);
    const third = simulation.step();
    expect(shape(third)).toEqual([
      ["a", 1],
      ["b", 3],
      ["c", 3],
    ]);
    expect(third.chunks.map(({ start, samples }) => [start, samples])).toEqual([
      [5, [0]],
      [7, [1]],
      [0, [2]],
    ]);
    expect(shape(simulation.step())).toEqual([
      ["a", 1],
      ["b", 1],
    ]);
    simulation.drain();
  });

  test("answers are not held up by more of a prompt than the mixed budget allows", () => {
    const simulation = new ServingSimulation({ tokenBudget: 32, mixedTokenBudget: 6 });
    simulation.add(request("a", text(4, 1), { maximumTokens: 9 }));
    simulation.add(request("b", text(30, 2), { maximumTokens: 2 }));
    expect(shape(simulation.step())).toEqual([
      ["a", 4],
      ["b", 28],
    ]);
    simulation.add(request("c", text(40, 3), { maximumTokens: 2, answers: 4 }));
    // One answer: five tokens are left for prompts.
    expect(shape(simulation.step())).toEqual([
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ]);
    // Two answers: four tokens.
    expect(shape(simulation.step())).toEqual([
      ["a", 1],
      ["b", 1],
      ["c", 4],
    ]);
    simulation.drain();
  });

  test("many answers leave a prompt as many tokens as they are", () => {
    const simulation = new ServingSimulation({ tokenBudget: 32, mixedTokenBudget: 6, maximumSequences: 9 });
    simulation.add(request("a", text(4, 1), { maximumTokens: 9, answers: 8 }));
    simulation.step();
    simulation.add(request("b", text(30, 2), { maximumTokens: 2 }));
    expect(shape(simulation.step()).filter(([id]) => id === "b")).toEqual([["b", 8]]);
    simulation.drain();
  });

  test("short prompts are composed, and the last one is split, so that steps are full", () => {
    const simulation = new ServingSimulation({ tokenBudget: 8 });
    for (const id of ["a", "b", "c", "d"]) simulation.add(request(id, text(3, id.charCodeAt(0))));
    expect(shape(simulation.step())).toEqual([
      ["a", 3],
      ["b", 3],
      ["c", 2],
    ]);
    // One token of c is left, and stands among the chunks of one token.
    expect(shape(simulation.step())).toEqual([
      ["c", 1],
      ["d", 3],
    ]);
    simulation.drain();
  });

  test("prefill-first runs whole prompts alone, and splits only those longer than a step", () => {
    const simulation = new ServingSimulation({ policy: "prefill-first", tokenBudget: 8 });
    simulation.add(request("a", text(3, 1), { maximumTokens: 9 }));
    simulation.step();
    simulation.add(request("b", text(10, 2), { maximumTokens: 9 }));
    simulation.add(request("c", text(5, 3)));
    simulation.add(request("d", text(4, 4)));
    const shapes = Array.from({ length: 4 }, () => shape(simulation.step()));
    expect(shapes).toEqual([
      [["b", 8]],
      [
        ["b", 2],
        ["c", 5],
      ],
      [["d", 4]],
      [
        ["a", 1],
        ["b", 1],
      ],
    ]);
    simulation.drain();
  });

  test("answers end by maximumTokens or by the context, and the last token is not computed", () => {
    const simulation = new ServingSimulation({ maximumContext: 12 });
    simulation.add(request("few", text(4, 1), { maximumTokens: 3 }));
    simulation.add(request("full", text(10, 2), { maximumTokens: 50 }));
    simulation.drain();
    expect(simulation.finished.get("few")).toEqual([[0, 1, 2]]);
    expect(simulation.finished.get("full")).toEqual([[0, 1]]);
    expect(simulation.tokensRun).toBe(4 + 2 + 10 + 1);
  });

  test("without work the plan is empty and nothing is in flight", () => {
    const { scheduler } = new ServingSimulation();
    expect(scheduler.hasWork()).toBe(false);
    expect(scheduler.schedule()).toEqual({ chunks: [], copies: [], preempted: [], tokens: 0 });
    expect(scheduler.schedule().chunks).toEqual([]);
    expect(scheduler.update([])).toEqual([]);
  });
});

describe("admission", () => {
  test("by priority, then tenants in turn, then arrival", () => {
    const simulation = new ServingSimulation({ maximumSequences: 1 });
    const order = [
      ["a1", "a", 0],
      ["a2", "a", 0],
      ["b1", "b", 0],
      ["late", "a", 1],
      ["urgent", "a", -1],
    ] as const;
    order.forEach(([id, tenant, priority], index) => {
      simulation.add(request(id, text(3, index), { tenant, priority }));
    });
    const ran = order.map(() => simulation.step().chunks[0]!.request);
    expect(ran).toEqual(["urgent", "a1", "b1", "a2", "late"]);
  });

  test("refuses when those without a place are too many, before anything is done", () => {
    const simulation = new ServingSimulation({ maximumSequences: 2, maximumWaiting: 1 });
    for (const id of ["a", "b", "c"])
      expect(simulation.add(request(id, text(3)))).toHaveProperty("sequences");
    expect(simulation.add(request("d", text(3)))).toEqual({
      refusal: { kind: "queue_full", waiting: 1, limit: 1 },
    });
    expect(simulation.scheduler.statistics.waiting).toBe(3);
    simulation.drain();
    expect(simulation.add(request("d", text(3)))).toHaveProperty("sequences");
  });

  test("where blocks are short, all who wait count, whatever places there are", () => {
    const simulation = new ServingSimulation({ blocks: 4, maximumWaiting: 1 });
    simulation.add(request("a", text(12, 1), { maximumTokens: 5 }));
    simulation.add(request("b", text(8, 2)));
    simulation.step();
    expect(simulation.scheduler.statistics).toMatchObject({ running: 1, waiting: 1 });
    expect(simulation.add(request("c", text(3)))).toEqual({
      refusal: { kind: "queue_full", waiting: 1, limit: 1 },
    });
    simulation.drain();
  });

  test("refuses what could never run", () => {
    const { scheduler } = new ServingSimulation({ blocks: 4, maximumContext: 20, maximumSequences: 2 });
    expect(scheduler.add(request("a", text(20)))).toEqual({
      refusal: { kind: "context_length_exceeded", tokens: 20, limit: 20 },
    });
    // 10 + 8 tokens, of which 17 are computed: 5 blocks of 4.
    expect(scheduler.add(request("a", text(10), { maximumTokens: 8 }))).toEqual({
      refusal: { kind: "pool_too_small", blocks: 5, limit: 4 },
    });
    expect(scheduler.add(request("a", text(10), { answers: 3 }))).toEqual({
      refusal: { kind: "too_many_answers", answers: 3, limit: 2 },
    });
    expect(scheduler.hasWork()).toBe(false);
    expect(scheduler.add(request("a", text(10), { maximumTokens: 7 }))).toEqual({
      sequences: [{ sequence: 0, request: "a", answer: 0 }],
    });
  });

  test.each([
    {
      priority: -1,
      expected: [
        ["long", 10],
        ["short", 6],
      ],
    },
    { priority: 0, expected: [["long", 16]] },
  ])(
    "a long prompt that runs makes room for a request of priority $priority: $expected",
    ({ priority, expected }) => {
      const simulation = new ServingSimulation();
      simulation.add(request("long", text(60, 1)));
      simulation.step();
      simulation.add(request("short", text(6, 2), { priority }));
      expect(shape(simulation.step())).toEqual(expected);
      simulation.drain();
    },
  );

  test("leaves running sequences the blocks that they need soon", () => {
    const simulation = new ServingSimulation({ blocks: 6, tokenBudget: 64 });
    simulation.add(request("a", text(7, 1), { maximumTokens: 2 }));
    // Four blocks, and four are free; but a may need one.
    simulation.add(request("b", text(16, 2)));
    expect(shape(simulation.step())).toEqual([["a", 7]]);
    expect(shape(simulation.step())).toEqual([["a", 1]]);
    expect(shape(simulation.step())).toEqual([["b", 16]]);
  });

  test("counts cached blocks that it would hold as taken", () => {
    const simulation = new ServingSimulation({ blocks: 8, tokenBudget: 64 });
    simulation.add(request("x", text(16, 1)));
    simulation.step();
    simulation.add(request("a", text(12, 2), { maximumTokens: 5 }));
    simulation.step();
    // Of 5 free blocks 4 are x's; with them one is left for b's other 8 tokens.
    simulation.add(request("b", [...text(16, 1), ...text(8, 3)]));
    expect(shape(simulation.step())).toEqual([["a", 1]]);
    simulation.drain();
  });

  test("a large request at the head is not passed by", () => {
    const simulation = new ServingSimulation({ blocks: 8, tokenBudget: 64 });
    simulation.add(request("a", text(16, 1), { maximumTokens: 3 }));
    simulation.add(request("large", text(24, 2)));
    simulation.add(request("small", text(2, 3)));
    expect(shape(simulation.step())).toEqual([["a", 16]]);
    simulation.step();
    simulation.step();
    expect(shape(simulation.step())).toEqual([
      ["large", 24],
      ["small", 2],
    ]);
  });
});

describe("shared prefixes", () => {
  test("are found block by block, among requests of one salt, once computed", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(14)));
    simulation.drain();
    simulation.add(request("b", [...text(13), 77, 78], { maximumTokens: 2 }));
    simulation.add(request("salted", text(13), { cacheSalt: "s", maximumTokens: 2 }));
    const plan = simulation.step();
    expect(plan.chunks.map(({ request: id, start }) => [id, start])).toEqual([
      ["b", 12],
      ["salted", 0],
    ]);
    expect(simulation.scheduler.cachedTokens("b")).toBe(12);
    expect(simulation.scheduler.cachedTokens("salted")).toBe(0);
    expect(simulation.scheduler.statistics).toMatchObject({ prefixQueries: 14 + 15 + 13, prefixHits: 12 });
    simulation.drain();
    expect(simulation.scheduler.cachedTokens("b")).toBe(0);
  });

  test("outlive what follows them", () => {
    const simulation = new ServingSimulation({ blocks: 4 });
    simulation.add(request("a", text(12, 1)));
    simulation.drain();
    // One block is unused; the other comes from a's end.
    simulation.add(request("b", text(8, 2)));
    simulation.drain();
    simulation.add(request("c", text(12, 1)));
    expect(simulation.step().chunks[0]!.start).toBe(8);
  });

  test("include what was answered", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(3), { maximumTokens: 6 }));
    simulation.drain();
    const answer = simulation.finished.get("a")![0]!;
    simulation.add(request("b", [...text(3), ...answer, 50, 51]));
    // 3 + 6 tokens, of which 8 were computed.
    expect(simulation.step().chunks[0]!.start).toBe(8);
  });

  test("of a whole prompt leave its last token to compute, in a copy that nobody else reads", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(8)));
    simulation.drain();
    simulation.add(request("b", text(8)));
    const plan = simulation.plan();
    expect(plan.chunks).toMatchObject([{ start: 7, tokens: [7], samples: [1] }]);
    expect(plan.copies).toEqual([{ source: 1, destination: plan.chunks[0]!.blockTable[1] }]);
    // A failure leaves rubbish in the copy only: the next one finds the cache as it was, and so does c.
    simulation.fail(plan);
    simulation.add(request("c", text(8)));
    const again = simulation.step();
    expect(again.chunks.map(({ start }) => start)).toEqual([7, 7]);
    expect(again.copies.map(({ source }) => source)).toEqual([1, 1]);
    simulation.drain();
  });

  test("are written in place where there is no block for a copy", () => {
    const simulation = new ServingSimulation({ blocks: 2 });
    simulation.add(request("a", text(8)));
    simulation.drain();
    simulation.add(request("b", text(8)));
    expect(simulation.step()).toMatchObject({ tokens: 1, copies: [] });
    simulation.drain();
  });

  test("are not used when switched off, nor after a reset", () => {
    for (const prefixCaching of [true, false]) {
      const simulation = new ServingSimulation({ prefixCaching });
      simulation.add(request("a", text(8)));
      simulation.drain();
      simulation.scheduler.resetPrefixCache();
      simulation.add(request("b", text(8)));
      expect(simulation.step().tokens).toBe(8);
      expect(simulation.scheduler.statistics.prefixHits).toBe(0);
    }
  });

  test.each([0, 5])(
    "of 1,024 tokens in 16 requests at once are computed once (%i tokens of their own)",
    (own) => {
      const simulation = new ServingSimulation({
        blockSize: 16,
        blocks: 512,
        tokenBudget: 600,
        maximumSequences: 32,
        maximumContext: 2048,
      });
      for (let each = 0; each < 16; each++) {
        simulation.add(request(`shared ${each}`, [...text(1024), ...text(own, each + 10)]));
      }
      simulation.add(request("other", text(40, 9)));
      expect(shape(simulation.step())).toEqual([["shared 0", 600]]);
      // Those who wait for the first hold nobody up.
      const second = shape(simulation.step());
      expect(second).toContainEqual(["shared 0", 424 + own]);
      expect(second).toContainEqual(["other", 40]);
      simulation.drain();
      const alone = 1024 + own;
      // Each of the 15 others runs its own tokens, or the last one.
      expect(simulation.tokensRun - 40).toBe(alone + 15 * Math.max(1, own));
      expect(simulation.tokensRun - 40).toBeLessThanOrEqual(1.1 * alone);
      expect(simulation.steps).toBe(3);
    },
  );

  test("are not waited for when small, nor by a higher priority, nor after an abort", () => {
    const small = new ServingSimulation({ tokenBudget: 200 });
    for (const seed of [1, 2]) small.add(request(`${seed}`, [...text(4), ...text(60, seed)]));
    expect(shape(small.step())).toEqual([
      ["1", 64],
      ["2", 64],
    ]);

    const urgent = new ServingSimulation();
    urgent.add(request("a", text(40)));
    urgent.step();
    urgent.add(request("b", text(40), { priority: -1 }));
    // b takes over what a has computed, and does the rest before a.
    const plan = urgent.step();
    expect(shape(plan)).toEqual([
      ["a", 1],
      ["b", 15],
    ]);
    expect(plan.chunks[1]!.start).toBe(16);
    urgent.drain();

    const aborted = new ServingSimulation();
    aborted.add(request("a", text(40)));
    aborted.add(request("b", text(40)));
    expect(shape(aborted.step())).toEqual([["a", 16]]);
    aborted.abort("a");
    expect(aborted.step().chunks).toMatchObject([{ request: "b", start: 16 }]);
    aborted.drain();
  });
});

describe("several answers to one prompt", () => {
  test("share its blocks; all but the last that writes copy the one that is partly filled", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(6), { answers: 3, maximumTokens: 4 }));
    const prompt = simulation.step();
    expect(prompt.chunks).toMatchObject([{ sequence: 0, samples: [0, 1, 2] }]);
    const [, shared] = prompt.chunks[0]!.blockTable;
    expect(simulation.scheduler.statistics).toMatchObject({ running: 3, usedBlocks: 2 });
    const plan = simulation.step();
    expect(plan.chunks.map(({ start, samples }) => [start, samples])).toEqual([
      [6, [0]],
      [6, [1]],
      [6, [2]],
    ]);
    expect(plan.copies.map(({ source }) => source)).toEqual([shared, shared]);
    expect(plan.chunks.map(({ blockTable }) => blockTable[0])).toEqual([0, 0, 0]);
    expect(new Set(plan.chunks.map(({ blockTable }) => blockTable[1])).size).toBe(3);
    expect(simulation.scheduler.statistics.usedBlocks).toBe(4);
    simulation.drain();
    expect(simulation.finished.get("a")).toEqual([
      [0, 1, 2, 3],
      [1, 2, 3, 4],
      [2, 3, 4, 5],
    ]);
    expect(simulation.copies.length).toBe(2);
  });

  test("need no copy when the prompt fills its blocks", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(8), { answers: 4, maximumTokens: 4 }));
    simulation.drain();
    expect(simulation.copies).toEqual([]);
  });

  test("go on when one ends, even the one that computes the prompt", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(20), { answers: 3, maximumTokens: 2 }));
    simulation.step();
    simulation.finish(0);
    expect(simulation.step().chunks).toMatchObject([{ sequence: 0, samples: [1, 2] }]);
    simulation.drain();
    expect(simulation.finished.get("a")?.map((answer) => answer.length)).toEqual([undefined, 2, 2]);
  });

  test("end one by one before the prompt is computed", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(20), { answers: 3 }));
    simulation.step();
    for (const sequence of [0, 2, 1]) {
      expect(simulation.scheduler.hasWork()).toBe(true);
      simulation.finish(sequence);
      simulation.scheduler.check();
    }
    expect(simulation.scheduler.hasWork()).toBe(false);
    expect(simulation.scheduler.statistics.usedBlocks).toBe(0);
  });
});

describe("preemption", () => {
  test("takes from the latest, which goes first among those who wait", () => {
    const simulation = new ServingSimulation({ blocks: 6 });
    simulation.add(request("a", text(7, 1), { maximumTokens: 17 }));
    simulation.add(request("b", text(7, 2), { maximumTokens: 10 }));
    const shapes = Array.from({ length: 6 }, () => simulation.step());
    expect(shapes.flatMap(({ preempted }) => preempted)).toEqual([]);
    simulation.add(request("c", text(2, 3)));
    // 12 tokens each fill the 6 blocks; a's 13th needs one of b's.
    const plan = simulation.step();
    expect(plan.preempted).toEqual([1]);
    expect(shape(plan)).toEqual([["a", 1]]);
    const order = new Set<string>();
    while (simulation.scheduler.hasWork()) {
      for (const chunk of simulation.step().chunks) order.add(chunk.request);
    }
    expect([...order]).toEqual(["a", "b", "c"]);
    expect(simulation.scheduler.statistics.preemptions).toBe(1);
    expect(simulation.finished.get("b")?.[0]).toHaveLength(10);
  });

  test("takes from the lower priority, though it came first", () => {
    const simulation = new ServingSimulation({ blocks: 6 });
    simulation.add(request("a", text(7, 1), { maximumTokens: 17, priority: 1 }));
    simulation.add(request("b", text(7, 2), { maximumTokens: 17 }));
    const preempted = Array.from({ length: 7 }, () => simulation.step().preempted).flat();
    expect(preempted).toEqual([0]);
    simulation.drain();
  });

  test("can be forced, and costs only what is cached no more", () => {
    const simulation = new ServingSimulation();
    expect(simulation.scheduler.preemptLatest()).toBeUndefined();
    simulation.add(request("a", text(10), { maximumTokens: 5 }));
    simulation.step();
    simulation.preemptLatest();
    expect(simulation.scheduler.statistics).toMatchObject({ waiting: 1, running: 0, usedBlocks: 0 });
    const plan = simulation.step();
    expect(plan.preempted).toEqual([0]);
    // 10 tokens were computed: two blocks of 4 are found again.
    expect(plan.chunks).toMatchObject([{ start: 8, samples: [0] }]);
    simulation.drain();
  });
});

describe("ends and failures", () => {
  test("an abort frees at once, or when the step in flight ends, whose results it ignores", () => {
    const { scheduler } = new ServingSimulation();
    scheduler.add(request("a", text(6), { answers: 2, maximumTokens: 9 }));
    scheduler.add(request("b", text(6, 1), { maximumTokens: 9 }));
    scheduler.schedule();
    scheduler.abort("a");
    expect(scheduler.statistics.usedBlocks).toBe(4);
    scheduler.update([0, 1, 2].map((sequence) => ({ sequence, token: 5, finished: false })));
    scheduler.check();
    expect(scheduler.statistics).toMatchObject({ running: 1, usedBlocks: 2 });
    scheduler.abort("b");
    expect(scheduler.statistics).toMatchObject({ running: 0, waiting: 0, usedBlocks: 0 });
    scheduler.abort("b");
    scheduler.finish(2);
    scheduler.check();
    expect(scheduler.hasWork()).toBe(false);
  });

  test("a discarded step is planned again as it was", () => {
    const simulation = new ServingSimulation();
    simulation.add(request("a", text(6), { answers: 2, maximumTokens: 3 }));
    simulation.add(request("b", text(6, 1), { maximumTokens: 3 }));
    simulation.step();
    const plan = simulation.plan();
    const copy = { chunks: shape(plan), sources: plan.copies.map(({ source }) => source) };
    simulation.fail(plan);
    expect(simulation.scheduler.statistics.usedBlocks).toBe(4);
    const again = simulation.plan();
    expect({ chunks: shape(again), sources: again.copies.map(({ source }) => source) }).toEqual(copy);
    simulation.fail(again);
    simulation.abort("a");
    simulation.drain();
    expect(simulation.finished.get("b")?.[0]).toHaveLength(3);
  });

  test("calls out of turn and wrong results are faults, after which the step is still in flight", () => {
    const { scheduler } = new ServingSimulation();
    expect(() => scheduler.discardStep()).toThrow("internal: there is no step in flight to discard");
    const sampled = (sequence: number) => ({ sequence, token: 1, finished: true });
    expect(() => scheduler.update([sampled(0)])).toThrow("internal: 1 results came and no step is in flight");
    scheduler.add(request("a", text(3)));
    scheduler.schedule();
    expect(() => scheduler.schedule()).toThrow("internal: a step is planned while another is in flight");
    expect(() => scheduler.preemptLatest()).toThrow(InternalError);
    expect(() => scheduler.update([])).toThrow("internal: sequence 0 was to be sampled and got no token");
    expect(() => scheduler.update([sampled(0), sampled(0)])).toThrow("a token of sequence 0 came");
    expect(() => scheduler.update([sampled(0), sampled(7)])).toThrow("a token of sequence 7 came");
    expect(scheduler.update([sampled(0)])).toEqual([]);
    expect(scheduler.hasWork()).toBe(false);
  });

  test("requests that the engine should have refused are faults", () => {
    const { scheduler } = new ServingSimulation();
    expect(() => scheduler.add(request("a", []))).toThrow("internal: request a has an empty prompt");
    expect(() => scheduler.add(request("a", [1], { answers: 0 }))).toThrow("asks for 0 answers");
    expect(() => scheduler.add(request("a", [1], { maximumTokens: 1.5 }))).toThrow("asks for 1.5 tokens");
    expect(() => scheduler.add(request("a", [1], { priority: Number.NaN }))).toThrow("the priority NaN");
    scheduler.add(request("a", [1]));
    expect(() => scheduler.add(request("a", [1]))).toThrow("request a was added before");
  });

  test("limits that nothing could keep are named", () => {
    const { options } = new ServingSimulation();
    expect(() => new Scheduler({ ...options, blockSize: 0 })).toThrow(ConfigError);
    expect(() => new Scheduler({ ...options, blockSize: 0 })).toThrow(
      "blockSize is not a limit to serve within\n  expected: a whole number of at least 1\n  received: 0",
    );
    expect(() => new Scheduler({ ...options, tokenBudget: 4, maximumSequences: 5 })).toThrow(
      "received: tokenBudget 4, maximumSequences 5",
    );
  });
});
