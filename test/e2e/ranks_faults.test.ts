import { describe, expect, test } from "vitest";
import { createNativeBackend } from "../../src/backends.ts";
import { localRanks } from "../../src/cli/train/local_ranks.ts";
import { runTraining, type TrainingRequest } from "../../src/train/run.ts";
import { type Config, Workplace } from "./support.ts";

/** A run of ranks in this process whose faults the test brings about. */
class FaultyRun {
  readonly notes: string[] = [];
  readonly place: Workplace;
  readonly #changes: Config;

  constructor(place: Workplace, changes: Config = {}) {
    this.place = place;
    this.#changes = {
      output_dir: place.path("out"),
      data: { train: place.path("text.txt") },
      train_batch_size: 8,
      train_micro_batch_size_per_gpu: 2,
      max_steps: 12,
      checkpoint: { every_steps: 4 },
      comm: { timeout_seconds: 2 },
      ...changes,
    };
  }

  async train(ranks: number, more: Partial<TrainingRequest> = {}) {
    const config = this.place.config(this.#changes);
    return await runTraining({
      configPath: this.place.path(config),
      overrides: [],
      resume: false,
      backend: createNativeBackend(),
      ranks: localRanks(ranks),
      view: () => ({
        update: () => {},
        close: () => {},
        note: (line) => {
          this.notes.push(line);
        },
      }),
      ...more,
    });
  }

  /** The message that a run fails with. */
  async failure(ranks: number, more: Partial<TrainingRequest>): Promise<string> {
    try {
      await this.train(ranks, more);
    } catch (error) {
      return (error as Error).message;
    }
    return "it did not fail";
  }
}

type OnStep = NonNullable<TrainingRequest["onStep"]>;

/** What fails a rank at a step, the first time that it comes there. */
function failOnce(rank: number, step: number, what: () => void | Promise<void>): OnStep {
  let failed = false;
  return async (atRank, atStep) => {
    if (failed || atRank !== rank || atStep !== step) return;
    failed = true;
    await what();
  };
}

const fall = (): void => {
  throw new Error("the rank fell over");
};
const stall = (): Promise<void> => new Promise(() => {});

describe("a rank that fails", () => {
  test("ends all ranks with its own error, and what was saved is whole", async () => {
    using place = new Workplace();
    const run = new FaultyRun(place);
    expect(await run.failure(2, { onStep: failOnce(1, 6, fall) })).toBe(
      "internal: rank 1, step 6: the rank fell over",
    );
    expect(place.list("out", "checkpoints")).toEqual(["step-4"]);
    expect(place.metrics().map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
    expect(place.list("out")).not.toContain("run.lock");
    const { outcome } = await run.train(2, { resume: true });
    expect([outcome.reason, outcome.step]).toEqual(["finished", 12]);
  });

  test("by stalling ends the others within the timeout, with its rank and the step", async () => {
    using place = new Workplace();
    const run = new FaultyRun(place);
    const message = await run.failure(2, { onStep: failOnce(1, 6, stall) });
    expect(message).toMatch(/rank 1/);
    expect(message).toMatch(/step 6/);
    expect(place.list("out", "checkpoints")).toEqual(["step-4"]);
  }, 40_000);
});

describe("restarts", () => {
  test("go on from the last complete checkpoint to the bits of the undisturbed run", async () => {
    using place = new Workplace();
    using other = new Workplace();
    const run = new FaultyRun(place);
    await run.train(2, { maximumRestarts: 1, onStep: failOnce(1, 7, fall) });
    await new FaultyRun(other).train(2);
    expect(place.losses()).toEqual(other.losses());
    expect(run.notes).toContain(
      "restart 1 of 1 from the last complete checkpoint: internal: rank 1, step 7: the rank fell over",
    );
  });

  test("with elasticity go on with fewer ranks, the batch held by accumulation", async () => {
    using place = new Workplace();
    using other = new Workplace();
    const run = new FaultyRun(place, {
      elasticity: { enabled: true },
      zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0 },
    });
    const { outcome } = await run.train(4, { maximumRestarts: 1, onStep: failOnce(3, 7, fall) });
    expect(outcome.step).toBe(12);
    expect(run.notes.join("\n")).toContain("on 2 of 4 ranks, data 2");
    expect(run.notes.join("\n")).toContain(
      "the checkpoint's batch of 8 rows is held: 2 micro x 2 accumulation x 2 ranks, on 4 before",
    );
    await new FaultyRun(other).train(4);
    for (const [step, loss] of other.losses().entries()) {
      expect(Math.abs(place.losses()[step]! / loss - 1)).toBeLessThan(1e-5);
    }
    expect(place.losses().length).toBe(12);
  });

  test("begin again where nothing was saved, and are not more than were asked for", async () => {
    using place = new Workplace();
    const run = new FaultyRun(place, { max_steps: 3 });
    const onStep: OnStep = (rank, step) => {
      if (rank === 0 && step === 2) fall();
    };
    expect(await run.failure(2, { maximumRestarts: 2, onStep })).toBe("the rank fell over");
    expect(run.notes.filter((line) => line.startsWith("restart"))).toEqual([
      "restart 1 of 2 from the beginning: the rank fell over",
      "restart 2 of 2 from the beginning: the rank fell over",
    ]);
  });
});
