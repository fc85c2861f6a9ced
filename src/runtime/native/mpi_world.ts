import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { launcherEnvironment } from "../../base/environment.ts";
import { RunError } from "../../base/errors.ts";
import type { GroupOptions, ProcessGroup } from "../group.ts";
import { loadAddon, type MpiTransport } from "./addon.ts";
import { NativeGroup } from "./group.ts";

/** What `build/slipstream_mpi.node` exports (native/mpi/transport.cc). */
interface MpiAddon {
  /** Joins the ranks that the launcher started; once a process. */
  openTransport(): MpiTransport;
  /** What MPI says of itself. */
  libraryVersion(): string;
}

/** The addon that joins ranks over MPI: built by build_mpi.ts, where there is an MPI. */
export const mpiAddonPath = join(
  dirname(fileURLToPath(import.meta.url)),
  "../../../build/slipstream_mpi.node",
);

/** What to install where there is no MPI. */
export const installMpi =
  "Debian, Ubuntu: apt-get install libopenmpi-dev openmpi-bin    Fedora: dnf install openmpi-devel    " +
  "macOS: brew install open-mpi    then: npx slipstream build";

/** What launchers tell the processes that they start about how many these are. */
const sizeVariables = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS"];
const rankVariables = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MPI_LOCALRANKID", "SLURM_PROCID"];

const machineVariables = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"];

/** What a launcher says of the processes that it started. */
export interface LaunchedRanks {
  readonly rank: number;
  readonly size: number;
  /** How many of them share this machine; all, where the launcher does not say. */
  readonly onThisMachine: number;
}

/** How many ranks `mpirun` or Slurm started, and which one this process is; undefined where neither did. */
export function launchedRanks(
  environment: Readonly<Record<string, string | undefined>> = launcherEnvironment(),
): LaunchedRanks | undefined {
  // Slurm writes "2(x3),1": as many on each machine.
  const local = machineVariables.map((name) => Number.parseInt(environment[name] ?? "", 10));
  const onThisMachine = local.find((count) => count > 0);
  for (const [index, name] of sizeVariables.entries()) {
    // A shell of a Slurm allocation has SLURM_NTASKS, but is no rank: those that srun starts have a step.
    if (name === "SLURM_NTASKS" && environment.SLURM_STEP_ID === undefined) continue;
    const [size, rank] = [Number(environment[name]), Number(environment[rankVariables[index]!])];
    if (!Number.isInteger(size) || size < 1 || !Number.isInteger(rank)) continue;
    return { rank, size, onThisMachine: onThisMachine ?? size };
  }
  return undefined;
}

/**
 * This process's end of the world that `mpirun` or Slurm started; undefined where neither did. May be called once a
 * process. When the process ends it waits for the other ranks.
 * @throws RunError where the MPI addon is not built or does not load.
 */
export function createMpiWorld({ timeoutSeconds }: GroupOptions): ProcessGroup | undefined {
  const launched = launchedRanks();
  if (launched === undefined) return undefined;
  const mpi = loadMpi();
  const addon = loadAddon();
  let group: NativeGroup;
  try {
    group = new NativeGroup(addon, addon.createMessageWorld(mpi.openTransport(), timeoutSeconds));
  } catch (cause) {
    throw new RunError("mpi_failed", "MPI does not start", {
      received: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
  if (group.size === launched.size) return group;
  throw new RunError("mpi_failed", "the launcher and MPI do not agree on how many ranks there are", {
    expected: `${launched.size}, as the launcher says`,
    received: `${group.size} from ${mpi.libraryVersion().split("\n")[0]}`,
    hint: "start with the mpirun of the MPI that the addon was built for, or set SLIPSTREAM_MPICXX and build again",
  });
}

/** What the MPI addon was built for; undefined where it is not built. @throws RunError where it does not load. */
export function mpiLibrary(): string | undefined {
  return existsSync(mpiAddonPath) ? loadMpi().libraryVersion().trim() : undefined;
}

function loadMpi(): MpiAddon {
  if (!existsSync(mpiAddonPath)) {
    throw new RunError("addon_missing", "Slipstream's MPI addon has not been built, so ranks cannot meet", {
      where: mpiAddonPath,
      hint: installMpi,
    });
  }
  const module = { exports: {} };
  try {
    // MPI libraries load their own parts later, which look for symbols among the global ones.
    process.dlopen(module, mpiAddonPath, constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL);
  } catch (cause) {
    throw new RunError("addon_broken", "Slipstream's MPI addon does not load", {
      where: mpiAddonPath,
      received: cause instanceof Error ? cause.message : String(cause),
      hint: installMpi,
      cause,
    });
  }
  return module.exports as MpiAddon;
}
