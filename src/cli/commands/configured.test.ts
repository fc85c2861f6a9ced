import type { Command } from "commander";
import { expect, test } from "vitest";
import { type BenchCommandOptions, defineBench } from "./bench.ts";
import { definePlan, type PlanCommandOptions } from "./plan.ts";
import { defineTrain, type TrainCommandOptions } from "./train.ts";

/** The options that a command line comes to. */
async function parse<T>(define: (run: (options: T) => Promise<void>) => Command, line: string): Promise<T> {
  let found: T | undefined;
  await define(async (options) => {
    found = options;
  })
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .parseAsync(line.split(" "), { from: "user" });
  return found!;
}

const train = (line: string) => parse<TrainCommandOptions>(defineTrain, line);
const plan = (line: string) => parse<PlanCommandOptions>(definePlan, line);
const suites = [
  { name: "matmul", summary: "matrix products" },
  { name: "training", summary: "steps of training" },
];
const bench = (line: string) => parse<BenchCommandOptions>((run) => defineBench(suites, run), line);

test("train", async () => {
  expect(await train("c.yaml")).toEqual({
    config: "c.yaml",
    overrides: [],
    ranks: 1,
    resume: false,
    maxRestarts: 0,
  });
  expect(
    await train("c.yaml --set a.b=1 --ranks 4 --set data.path=x=y --resume --max-restarts 2 --trace t.json"),
  ).toEqual({
    config: "c.yaml",
    overrides: ["a.b=1", "data.path=x=y"],
    ranks: 4,
    resume: true,
    maxRestarts: 2,
    trace: "t.json",
  });
});

test("plan", async () => {
  expect(await plan("c.json --ranks 8 --set seed=2 --json")).toEqual({
    config: "c.json",
    overrides: ["seed=2"],
    ranks: 8,
    json: true,
  });
});

test("bench", async () => {
  expect(await bench("training --json out.json")).toEqual({ suite: "training", json: "out.json" });
});

test.each([
  [train, "c.yaml --set max_steps", "Expected path.to.key=value"],
  [train, "c.yaml --set =5", "Expected path.to.key=value"],
  [train, "c.yaml --ranks 0", "Expected an integer, from 1 to 1024."],
  [train, "c.yaml d.yaml", "too many arguments"],
  [plan, "c.yaml --ranks two", "Expected an integer, from 1 to 65536."],
  [bench, "matmull", "Expected one of matmul, training. Did you mean matmul?"],
  [bench, "--json x", "missing required argument 'SUITE'"],
])("%s %s is refused: %s", async (command, line, message) => {
  await expect(command(line)).rejects.toThrow(message);
});
