import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { createMpiWorld, launchedRanks } from "../../src/backends.ts";
import { mpiAbsence, runRanks } from "./mpi_support.ts";

/** Ranks as processes of mpirun: the same collectives, bits and errors as ranks of one process. */

const absence = mpiAbsence();
if (absence !== undefined) console.warn(`tests under mpirun are skipped: ${absence}`);

interface Failure {
  readonly code: string;
  readonly message: string;
}

/** What all ranks of a scenario ended with. */
function failures(ranks: number, scenario: string, timeoutSeconds: number): Failure[] {
  const { status, found, output } = runRanks(ranks, scenario, timeoutSeconds);
  expect({ status, ranks: found.length }, output).toEqual({ status: 0, ranks });
  return found as Failure[];
}

describe.skipIf(absence !== undefined)("under mpirun", () => {
  test.each([2, 4])(
    "every collective over %i processes gives the bits of the ordered sum",
    (ranks) => {
      const { status, found, output } = runRanks(ranks, "collectives", 60);
      expect({ status, found }, output).toEqual({
        status: 0,
        found: Array.from({ length: ranks }, () => []),
      });
    },
    300_000,
  );

  test("a rank that calls something else", () => {
    for (const { code, message } of failures(3, "mismatch", 20)) {
      expect(code).toBe("collective_mismatch");
      expect(message).toContain('ranks 0 and 2 (step 1): all_reduce "gradients" of f32[8]');
      expect(message).toContain('rank 1 (step 1): all_gather "weights" of f32[2]');
    }
  });

  test("counts that do not agree", () => {
    for (const { code, message } of failures(3, "counts", 20)) {
      expect(code).toBe("collective_mismatch");
      expect(message).toContain("rank 0: sends 1 elements to rank 1 in all_to_all_variable of f32");
      expect(message).toContain("rank 1 (step 1): expects 2 of rank 0");
    }
  });

  test("a rank that stalls", () => {
    for (const { code, message } of failures(3, "stall", 1)) {
      expect(code).toBe("collective_timeout");
      expect(message).toContain(
        'rank 1 did not come to all_reduce "gradients" of f32[8] within 1 s\n' +
          '  where:    group "world" (ranks 0, 1 and 2), call 1, step 4',
      );
    }
  });

  test("a rank that gives up", () => {
    for (const { code, message } of failures(3, "abort", 20)) {
      expect([code, message]).toEqual([
        "rank_lost",
        'rank 1 gave up: the data set ended\n  where:    group "world" (ranks 0, 1 and 2), step 1',
      ]);
    }
  });

  test.each(["leave", "vanish"])("a rank that ends before the others: %s", (scenario) => {
    const [first, second, third] = failures(3, scenario, 20) as [Failure, Failure, Failure];
    expect(second.code).toBe("none");
    for (const { code, message } of [first, third]) {
      expect(code).toBe("rank_lost");
      expect(message).toMatch(/^rank 1 closed the group before barrier/);
    }
  });

  test("a rank that is killed ends all of them", () => {
    const { status, output } = runRanks(3, "kill", 5);
    expect(status, output).not.toBe(0);
    expect(output).not.toContain('"code":"none"');
  });
});

test("launchers are known by what they set", () => {
  expect(launchedRanks({})).toBeUndefined();
  const openMpi = {
    OMPI_COMM_WORLD_SIZE: "4",
    OMPI_COMM_WORLD_RANK: "3",
    OMPI_COMM_WORLD_LOCAL_SIZE: "2",
  };
  expect(launchedRanks(openMpi)).toEqual({ rank: 3, size: 4, onThisMachine: 2 });
  expect(launchedRanks({ PMI_SIZE: "2", PMI_RANK: "0" })).toEqual({ rank: 0, size: 2, onThisMachine: 2 });
  // A shell within an allocation of Slurm is no rank.
  expect(launchedRanks({ SLURM_NTASKS: "8", SLURM_PROCID: "0" })).toBeUndefined();
  const step = {
    SLURM_NTASKS: "8",
    SLURM_PROCID: "5",
    SLURM_STEP_ID: "0",
    SLURM_STEP_TASKS_PER_NODE: "4(x2)",
  };
  expect(launchedRanks(step)).toEqual({ rank: 5, size: 8, onThisMachine: 4 });
  expect(createMpiWorld({ timeoutSeconds: 1 })).toBeUndefined();
});

test("without the addon, ranks are told what to install", () => {
  const script = `
    import fs from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    const exists = fs.existsSync;
    fs.existsSync = (path) => !String(path).endsWith("slipstream_mpi.node") && exists(path);
    syncBuiltinESMExports();
    const { createMpiWorld } = await import("./src/backends.ts");
    try {
      createMpiWorld({ timeoutSeconds: 1 });
    } catch (error) {
      console.log(error.code, error.message);
    }
  `;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    env: { ...process.env, OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_RANK: "0" },
  });
  expect(stdout).toMatch(/^addon_missing Slipstream's MPI addon has not been built/);
  expect(stdout).toContain("apt-get install libopenmpi-dev openmpi-bin");
});
