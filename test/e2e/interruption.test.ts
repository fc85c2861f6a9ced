import { existsSync, watch } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Workplace } from "./support.ts";

const steps = 60;
const changes = { max_steps: steps, steps_per_print: 1, checkpoint: { every_steps: 2, keep_last: 2 } };
const last = ["out", "checkpoints", `step-${steps}`, "tensors.safetensors"] as const;

/** An uninterrupted run, with which the others are compared. */
const reference = new Workplace();
beforeAll(async () => {
  await reference.train([reference.config(changes)]);
});
afterAll(() => {
  reference[Symbol.dispose]();
});

/** The curve and the final state must be those of the uninterrupted run, bit for bit. */
function expectAsUninterrupted(place: Workplace): void {
  expect(place.losses()).toEqual(reference.losses());
  expect(place.hash(...last)).toBe(reference.hash(...last));
  expect(place.hash("out", "model", "model.safetensors")).toBe(
    reference.hash("out", "model", "model.safetensors"),
  );
  expect(place.list("out", "checkpoints")).toEqual(reference.list("out", "checkpoints"));
  expect(place.list("out")).toEqual(reference.list("out"));
}

function hasCheckpoint(place: Workplace): boolean {
  return (
    existsSync(place.path("out", "checkpoints")) &&
    place.list("out", "checkpoints").some((name) => /^step-\d+$/.test(name))
  );
}

describe("kill -9", () => {
  test("at any moment of a run, and of its resumed runs: the last resume ends as if nothing had been", async () => {
    using place = new Workplace();
    const config = place.config(changes);
    let kills = 0;
    for (const [step, milliseconds] of [
      [1, 0],
      [6, 3],
      [17, 1],
      [26, 7],
      [35, 0],
    ] as const) {
      const resume = hasCheckpoint(place) ? ["--resume"] : [];
      const run = place.start(["train", config, ...resume]);
      await run.seen(new RegExp(`step ${step}/`)).catch(() => undefined);
      await sleep(milliseconds);
      run.child.kill("SIGKILL");
      // On a machine that is busy elsewhere a run may come to its end before the signal.
      if ((await run.done).status !== null) continue;
      kills++;
      expect(place.list("out")).toContain("run.lock");
    }
    expect(kills).toBeGreaterThan(1);
    await place.train([config, "--resume"]);
    expectAsUninterrupted(place);
  });

  test("in the middle of a checkpoint: what was unfinished is cleared, and the one before it resumes", async () => {
    using place = new Workplace();
    const config = place.config(changes);
    let unfinished: string[] = [];
    for (let attempt = 0; attempt < 20 && unfinished.length === 0; attempt++) {
      const run = place.start(["train", config, ...(hasCheckpoint(place) ? ["--resume"] : [])]);
      await run.seen(/saved out\/checkpoints/);
      const watcher = watch(place.path("out", "checkpoints"), (_event, name) => {
        if (name?.includes(".tmp-")) run.child.kill("SIGKILL");
      });
      await run.done;
      watcher.close();
      unfinished = place.list("out", "checkpoints").filter((name) => name.includes(".tmp-"));
    }
    expect(unfinished.length).toBe(1);
    const { output } = await place.train([config, "--resume"]);
    expect(output).toMatch(/resumed from out\/checkpoints\/step-\d+\n/);
    expectAsUninterrupted(place);
  });
});

describe("Ctrl-C", () => {
  test("saves a checkpoint, ends with 130 and prints a command that goes on exactly", async () => {
    using place = new Workplace();
    const config = place.config({ ...changes, checkpoint: { keep_last: 2 } }, "a config.json");
    const overrides = ["--set", "data.train=[text.txt, text.txt]", "--set", "seed=5"];
    const run = place.start(["train", config, ...overrides]);
    await run.seen(/step 3\//);
    run.child.kill("SIGINT");
    const { status, output, errors } = await run.done;
    expect({ status, errors }).toEqual({ status: 130, errors: "" });
    const [, step] = /stopped after step (\d+); checkpoint: out\/checkpoints\/step-\1\n/.exec(output)!;
    expect(place.metrics().at(-1)!.step).toBe(Number(step));
    expect(place.list("out")).not.toContain("run.lock");
    expect(place.list("out")).not.toContain("model");
    const [, command] = /resume with: slipstream (.*)\n/.exec(output)!;
    expect(command).toBe(
      `train 'a config.json' --set 'data.train=[text.txt, text.txt]' --set seed=5 --resume`,
    );
    const words = [...command!.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
    const resumed = await place.run(words);
    expect(resumed).toMatchObject({ status: 0, errors: "" });

    using straight = new Workplace();
    straight.config({ ...changes, checkpoint: { keep_last: 2 } }, "a config.json");
    await straight.train(["a config.json", ...overrides]);
    expect(place.losses()).toEqual(straight.losses());
    expect(place.hash(...last)).toBe(straight.hash(...last));
  });

  test("SIGTERM does the same", async () => {
    using place = new Workplace();
    const config = place.config({ ...changes, max_steps: 100_000 });
    const run = place.start(["train", config]);
    await run.seen(/step 3\//);
    run.child.kill("SIGTERM");
    const { status, output } = await run.done;
    expect(status).toBe(130);
    expect(output).toMatch(/resume with: slipstream train config\.json --resume\n/);
  });
});
