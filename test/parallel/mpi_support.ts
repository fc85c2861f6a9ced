import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { mpiAddonPath } from "../../src/runtime/native/mpi_world.ts";

/** What a run of `mpi_ranks.ts` under mpirun printed. */
export interface RanksReport {
  readonly status: number | null;
  /** What each rank found, in the order of ranks; ranks that printed nothing are left out. */
  readonly found: unknown[];
  readonly output: string;
}

export const ranksProgram = fileURLToPath(new URL("mpi_ranks.ts", import.meta.url));

/** Why ranks cannot be started by mpirun on this machine; undefined where they can. */
export function mpiAbsence(): string | undefined {
  if (spawnSync("mpirun", ["--version"]).status !== 0) return "there is no mpirun";
  return existsSync(mpiAddonPath) ? undefined : "the MPI addon is not built";
}

/** Runs a command that starts ranks of `mpi_ranks.ts`, and gathers what they print. */
export function runCommand(command: string, parameters: readonly string[], seconds = 290): RanksReport {
  const { status, stdout, stderr } = spawnSync(command, parameters, {
    encoding: "utf8",
    timeout: seconds * 1000,
  });
  const reports = stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as { rank: number; found: unknown });
  return {
    status,
    found: reports.toSorted((a, b) => a.rank - b.rank).map(({ found }) => found),
    output: stdout + stderr,
  };
}

/** Starts ranks of this machine with mpirun. */
export function runRanks(ranks: number, scenario: string, timeoutSeconds: number): RanksReport {
  return runCommand("mpirun", [
    ...["--allow-run-as-root", "--oversubscribe", "-n", String(ranks)],
    ...[process.execPath, ranksProgram, scenario, String(timeoutSeconds)],
  ]);
}
