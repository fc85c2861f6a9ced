import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Open MPI's own all_reduce over shared memory, compiled when it is first measured. */
export interface OpenMpiPeer {
  /** Seconds of each of `repetitions`, and the last element of the result. */
  allReduce(bytes: number, ranks: number, repetitions: number): { seconds: number[]; sum: number };
  /** What `mpirun` says of its version. */
  readonly version: string;
  close(): void;
}

/** Compiles the peer; the reason where there is no MPI. */
export function startOpenMpi(): OpenMpiPeer | { readonly absent: string } {
  const install = "apt-get install libopenmpi-dev openmpi-bin";
  const version = spawnSync("mpirun", ["--version"], { encoding: "utf8" });
  if (version.status !== 0) return { absent: `peer absent: Open MPI; to install: ${install}` };
  const folder = mkdtempSync(join(tmpdir(), "slipstream-mpi-"));
  const program = join(folder, "all_reduce");
  const source = fileURLToPath(new URL("mpi_all_reduce.c", import.meta.url));
  const compiled = spawnSync("mpicc", ["-O3", "-o", program, source], { encoding: "utf8" });
  if (compiled.status !== 0) {
    rmSync(folder, { recursive: true });
    return { absent: `peer absent: mpicc failed (${compiled.stderr}); to install: ${install}` };
  }
  return {
    version: version.stdout.split("\n")[0]!,
    allReduce: (bytes, ranks, repetitions) => {
      const options = ["--allow-run-as-root", "--oversubscribe", "-n", String(ranks)];
      const numbers = [String(bytes), String(repetitions)];
      const { status, stdout, stderr } = spawnSync("mpirun", [...options, program, ...numbers], {
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`mpirun failed: ${stderr}`);
      return JSON.parse(stdout) as { seconds: number[]; sum: number };
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
