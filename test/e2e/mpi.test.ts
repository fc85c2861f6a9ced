import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { mpiAbsence } from "../parallel/mpi_support.ts";
import { root, Workplace } from "./support.ts";

/** Training under mpirun: what ranks of one process learn, bit for bit. */

const launcher = ["--allow-run-as-root", "--oversubscribe", "-n", "2"];

function mpirun(place: Workplace, parameters: readonly string[]) {
  return spawnSync(
    "mpirun",
    [...launcher, process.execPath, join(root, "bin/slipstream.js"), "train", ...parameters],
    { cwd: place.folder, encoding: "utf8", timeout: 280_000 },
  );
}

test("two processes learn the same bits as two ranks of one process", async (context) => {
  const absence = mpiAbsence();
  if (absence !== undefined) return context.skip(absence);
  using place = new Workplace();
  const config = place.config({
    train_batch_size: 8,
    train_micro_batch_size_per_gpu: 2,
    zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0 },
  });
  await place.train([config, "--ranks", "2"]);
  const { status, stdout, stderr } = mpirun(place, [config, "--set", "output_dir=mpi"]);
  expect(status, stdout + stderr).toBe(0);
  // Rank 0 alone says how it ended.
  expect(stdout.match(/^checkpoint: /gm)).toHaveLength(1);
  expect(place.losses("mpi")).toEqual(place.losses());
  expect(place.hash("mpi", "model", "model.safetensors")).toBe(
    place.hash("out", "model", "model.safetensors"),
  );
}, 300_000);

test("--ranks does not go with mpirun", (context) => {
  const absence = mpiAbsence();
  if (absence !== undefined) return context.skip(absence);
  using place = new Workplace();
  const { status, stderr } = mpirun(place, [place.config(), "--ranks", "3"]);
  expect(status).not.toBe(0);
  expect(stderr).toContain("--ranks is for ranks of one process");
  expect(stderr).toContain("the launcher started 2 ranks");
}, 300_000);
