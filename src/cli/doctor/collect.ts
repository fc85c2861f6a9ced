import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import {
  type EnvironmentVariable,
  environmentVariables,
  readInteger,
  readVariable,
} from "../../base/environment.ts";
import { SlipstreamError } from "../../base/errors.ts";
import { type Addon, loadAddon } from "../../runtime/native/addon.ts";
import { mpiLibrary } from "../../runtime/native/mpi_world.ts";
import { packageVersion } from "../version.ts";
import { explainInstructionSets, parseProcessorFeatures, relevantFeatures } from "./instruction_sets.ts";
import type { DoctorReport } from "./report.ts";
import { findFirstTool, findTool } from "./tools.ts";

/** The features that the operating system lists, or undefined where it has no such list. */
function readProcessorFeatures(): Set<string> | undefined {
  try {
    return parseProcessorFeatures(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return undefined;
  }
}

/** Memory of this machine or, where smaller, of the container it runs in. Bytes. */
function measureMemory(): { memory: number; memoryAvailable: number } {
  const limit = process.constrainedMemory();
  const memory = limit > 0 ? Math.min(totalmem(), limit) : totalmem();
  return { memory, memoryAvailable: Math.min(memory, process.availableMemory?.() ?? freemem()) };
}

function tryAddon(): { addon?: Addon; problem?: string } {
  try {
    return { addon: loadAddon() };
  } catch (error) {
    if (!(error instanceof SlipstreamError)) throw error;
    return { problem: error.message };
  }
}

/** The MPI that the MPI addon was built for, where there is one. */
function tryMpi(): { library?: string | undefined; problem?: string } {
  try {
    return { library: mpiLibrary() };
  } catch (error) {
    if (!(error instanceof SlipstreamError)) throw error;
    return { problem: error.message };
  }
}

/** The number of threads, or what is wrong with SLIPSTREAM_THREADS. */
function chooseThreads(): { count: number; why: string; problem?: string } {
  const { threads } = environmentVariables;
  try {
    const asked = readInteger(threads, 1, 256);
    if (asked !== undefined) return { count: asked, why: `${threads.name} asks for it` };
    return { count: availableParallelism(), why: "one a core" };
  } catch (error) {
    if (!(error instanceof SlipstreamError)) throw error;
    return { count: availableParallelism(), why: "one a core", problem: error.message };
  }
}

function listVariants(addon: Addon | undefined): Record<string, string[]> {
  const kernels: Record<string, string[]> = {};
  for (const { name, isa } of addon?.listKernels() ?? []) kernels[name] = [...(kernels[name] ?? []), isa];
  return Object.fromEntries(Object.entries(kernels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function inspectInstructionSet(addon: Addon | undefined): {
  instructionSet: DoctorReport["instructionSet"];
  problem?: string;
} {
  const forced = readVariable(environmentVariables.isa);
  const features = readProcessorFeatures();
  const detected = addon?.detectedIsa();
  const levels = explainInstructionSets({ architecture: process.arch, detected, forced, features });
  const refused = forced !== undefined && addon !== undefined && !addon.canRunIsa(forced);
  const inUse = refused ? undefined : levels.find((level) => level.status === "in use")?.isa;
  const instructionSet = {
    inUse: inUse ?? null,
    detected: detected ?? null,
    forced: forced ?? null,
    levels,
    features: features === undefined ? null : relevantFeatures(process.arch, features),
  };
  if (!refused) return { instructionSet };
  const { name, values } = environmentVariables.isa;
  return {
    instructionSet,
    problem: `${name}=${forced} cannot run here, and every run will refuse it\n  expected: ${values}, up to ${detected}`,
  };
}

/** Looks at this machine and at how Slipstream would run on it. Never throws for what it finds. */
export async function collectReport(): Promise<DoctorReport> {
  const chosenCompiler = readVariable(environmentVariables.compiler);
  const [compiler, mpirun, mpiCompiler] = await Promise.all([
    findFirstTool(chosenCompiler === undefined ? ["g++", "clang++"] : [chosenCompiler]),
    findTool("mpirun"),
    findTool(readVariable(environmentVariables.mpiCompiler) ?? "mpicxx"),
  ]);
  const { library, problem: mpiProblem } = tryMpi();
  const { addon, problem: addonProblem } = tryAddon();
  const { instructionSet, problem: isaProblem } = inspectInstructionSet(addon);
  const { problem: threadsProblem, ...threads } = chooseThreads();
  const compilerProblem =
    compiler !== undefined
      ? undefined
      : chosenCompiler === undefined
        ? "no C++ compiler was found\n  to do:    Debian, Ubuntu: apt-get install g++    Fedora: dnf install gcc-c++    macOS: xcode-select --install"
        : `the compiler of ${environmentVariables.compiler.name}=${chosenCompiler} does not run`;
  const variables = Object.values(environmentVariables).flatMap(
    (variable: EnvironmentVariable): [string, string][] => {
      const value = readVariable(variable);
      if (value === undefined) return [];
      return [[variable.name, variable.secret === true ? "(set; a secret)" : value]];
    },
  );
  return {
    slipstream: { version: packageVersion(), folder: fileURLToPath(new URL("../../../", import.meta.url)) },
    node: { version: process.versions.node, path: process.execPath },
    backend: {
      name: addon === undefined ? "reference" : "native",
      why:
        addon === undefined
          ? "the native code does not load: TypeScript in float64 is all there is"
          : "the native code is built and loads",
      addonBuilt: addon !== undefined,
    },
    instructionSet,
    kernels: listVariants(addon),
    threads,
    machine: {
      processor: cpus()[0]?.model.trim() || "unknown",
      platform: process.platform,
      architecture: process.arch,
      cores: availableParallelism(),
      ...measureMemory(),
    },
    compiler: compiler ?? null,
    mpi: { library: library ?? null, mpirun: mpirun ?? null, compiler: mpiCompiler ?? null },
    environment: Object.fromEntries(variables),
    problems: [addonProblem, isaProblem, threadsProblem, compilerProblem, mpiProblem].filter(
      (problem) => problem !== undefined,
    ),
  };
}
