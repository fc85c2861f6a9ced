/** Compiles `native/mpi/` into `build/slipstream_mpi.node`, where an MPI with its C++ compiler is installed. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { environmentVariables, readVariable } from "../../base/environment.ts";
import { RunError } from "../../base/errors.ts";
import { buildFolder, type Compiler, commonFlags, compileUnits, linkAddon, type Unit } from "./build.ts";
import { installMpi, mpiAddonPath } from "./mpi_world.ts";

/**
 * The C++ compiler of this machine's MPI; undefined where there is none.
 * @throws RunError where the one that was asked for does not run.
 */
export function findMpiCompiler(): Compiler | undefined {
  const { mpiCompiler } = environmentVariables;
  const chosen = readVariable(mpiCompiler);
  const command = chosen ?? "mpicxx";
  const result = spawnSync(command, ["--version"], { encoding: "utf8" });
  if (result.status === 0) return { command, version: result.stdout.split("\n")[0] ?? "" };
  if (chosen === undefined) return undefined;
  throw new RunError("no_compiler", `the MPI compiler of ${mpiCompiler.name}=${chosen} does not run`, {
    hint: installMpi,
  });
}

/**
 * Builds the MPI addon where it is out of date, and returns its path; undefined where there is no MPI to build it for.
 * @throws RunError with what the compiler said.
 */
export async function buildMpi(log: (line: string) => void = console.log): Promise<string | undefined> {
  const compiler = findMpiCompiler();
  if (compiler === undefined) return undefined;
  const units: Unit[] = [
    {
      source: "native/mpi/transport.cc",
      object: join(buildFolder, "objects", "native-mpi-transport.cc.o"),
      // The C++ bindings of old MPIs are not wanted.
      flags: [...commonFlags, "-DOMPI_SKIP_MPICXX", "-DMPICH_SKIP_MPICXX"],
    },
  ];
  const started = performance.now();
  const compiled = await compileUnits(units, compiler, log);
  await linkAddon(mpiAddonPath, units, compiler, log, { started, again: compiled > 0 });
  return mpiAddonPath;
}
