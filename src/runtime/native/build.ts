/**
 * Compiles `native/` into `build/slipstream.node` with the C++ compiler directly. Files are compiled again
 * only when their inputs (source, headers, flags, compiler) change.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, isAbsolute, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { environmentVariables, readVariable } from "../../base/environment.ts";
import { RunError, SlipstreamError } from "../../base/errors.ts";

const { include_dir: nodeHeaders } = createRequire(import.meta.url)("node-api-headers") as {
  include_dir: string;
};
const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
/** Where everything that is compiled goes. */
export const buildFolder = join(root, "build");
const addonPath = join(buildFolder, "slipstream.node");

const avx512 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"];
const avx512bf16 = [...avx512, "-mavx512vnni", "-mavx512bf16"];

/** Flags by the suffix before `.cc`; a file without one is compiled for every processor. */
const flagsBySuffix: Record<string, { flags: string[]; architecture: string }> = {
  avx2: { flags: ["-mavx2", "-mfma", "-mf16c", "-mbmi2"], architecture: "x64" },
  avx512: { flags: avx512, architecture: "x64" },
  avx512bf16: { flags: avx512bf16, architecture: "x64" },
  amx: { flags: [...avx512bf16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"], architecture: "x64" },
  neon: { flags: [], architecture: "arm64" },
};

/** Flags of every file. */
export const commonFlags: readonly string[] = [
  "-std=c++20",
  "-O3",
  "-fPIC",
  "-fvisibility=hidden",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-ffp-contract=off",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-DNAPI_VERSION=9",
  "-Inative",
  `-I${nodeHeaders}`,
];

/** A source file and the object that it becomes. */
export interface Unit {
  readonly source: string;
  readonly object: string;
  readonly flags: readonly string[];
}

/** A compiler's command, and what it says of its version. */
export interface Compiler {
  readonly command: string;
  readonly version: string;
}

/**
 * The C++ compiler of this machine.
 * @throws RunError saying what to install where there is none.
 */
export function findCompiler(): Compiler {
  const chosen = readVariable(environmentVariables.compiler);
  for (const command of chosen ? [chosen] : ["g++", "clang++"]) {
    const result = spawnSync(command, ["--version"], { encoding: "utf8" });
    if (result.status === 0) return { command, version: result.stdout.split("\n")[0] ?? "" };
  }
  throw new RunError("no_compiler", "Slipstream's kernels need a C++20 compiler, and none was found", {
    expected: chosen
      ? `a working compiler at ${environmentVariables.compiler.name}=${chosen}`
      : "g++ (12 or newer) or clang++ (15 or newer) on the PATH",
    hint: "Debian, Ubuntu: apt-get install g++    Fedora: dnf install gcc-c++    macOS: xcode-select --install",
  });
}

/** What to compile `native/` for, and where to put the objects. */
export interface Target {
  /** Node's name of the processors, such as `x64` or `arm64`. */
  readonly architecture: string;
  readonly objects: string;
  /** Adds the AMX kernels on a software model of the tiles. */
  readonly emulated?: boolean;
}

/** The files of `native/` that a target is built from. */
export function listUnits({ architecture, objects, emulated = false }: Target): Unit[] {
  const units: Unit[] = [];
  for (const source of globSync("native/**/*.cc", { cwd: root }).sort()) {
    // An addon of its own: build_mpi.ts.
    if (source.startsWith("native/mpi/")) continue;
    const suffix = /\.([a-z0-9]+)\.cc$/.exec(source)?.[1];
    const variant = suffix === undefined ? { flags: [], architecture } : flagsBySuffix[suffix];
    if (variant === undefined) {
      throw new SlipstreamError("bad_suffix", `no compiler flags are known for ${source}`, {
        expected: `one of ${Object.keys(flagsBySuffix).join(", ")} before .cc`,
      });
    }
    if (variant.architecture !== architecture) continue;
    const object = join(objects, `${source.replaceAll("/", "-")}.o`);
    units.push({ source, object, flags: [...commonFlags, ...variant.flags] });
    // The same AMX code on a software model of the tiles, so that every machine with AVX-512 can test it.
    if (suffix === "amx" && emulated) {
      units.push({
        source,
        object: object.replace(/\.o$/, ".emulated.o"),
        flags: [...commonFlags, ...avx512bf16, "-DSLIPSTREAM_AMX_EMULATED"],
      });
    }
  }
  return units;
}

/**
 * A digest of everything that went into an object: compiler, flags, and the texts of the source and of the
 * headers that the compiler said it read. Undefined where the object has not been compiled yet.
 */
function digestOf(unit: Unit, compiler: Compiler): string | undefined {
  const dependencies = `${unit.object}.d`;
  if (!existsSync(dependencies)) return undefined;
  const files = readFileSync(dependencies, "utf8")
    .replace(/^[^:]*:/, "")
    .replaceAll("\\\n", " ")
    .trim()
    .split(/\s+/);
  const hash = createHash("sha256").update(
    JSON.stringify([compiler, unit.flags.filter((flag) => !flag.endsWith(nodeHeaders))]),
  );
  for (const file of files) {
    if (isAbsolute(file)) continue;
    if (!existsSync(join(root, file))) return undefined;
    hash.update(file).update(readFileSync(join(root, file)));
  }
  return hash.digest("hex");
}

/**
 * Runs a compiler or a linker in the project's folder.
 * @throws RunError with what it printed where it fails.
 */
export function run(command: string, parameters: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, parameters, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (piece) => (output += piece));
    child.stderr.on("data", (piece) => (output += piece));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) return resolve();
      reject(
        new RunError("compile_failed", `${command} failed on ${parameters.at(-1) ?? ""}`, {
          received: output.slice(0, 8000),
        }),
      );
    });
  });
}

function recorded(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/**
 * Compiles the units that are out of date, as many at a time as there are processors, and returns how many
 * they were.
 * @throws RunError with what the compiler said.
 */
export async function compileUnits(
  units: readonly Unit[],
  compiler: Compiler,
  log: (line: string) => void,
): Promise<number> {
  const stale = units.filter((unit) => {
    const digest = digestOf(unit, compiler);
    return digest === undefined || !existsSync(unit.object) || recorded(`${unit.object}.digest`) !== digest;
  });
  if (stale.length > 0) log(`compiling ${stale.length} native files with ${compiler.version}`);
  const queue = [...stale];
  const worker = async () => {
    for (let unit = queue.shift(); unit !== undefined; unit = queue.shift()) {
      mkdirSync(dirname(unit.object), { recursive: true });
      const dependencies = ["-MMD", "-MF", `${unit.object}.d`];
      await run(compiler.command, [...unit.flags, ...dependencies, "-c", "-o", unit.object, unit.source]);
      writeFileSync(`${unit.object}.digest`, digestOf(unit, compiler) ?? "");
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return stale.length;
}

/** What to build. */
export interface BuildOptions {
  /** Adds the AMX kernels on a software model of the tiles, which only tests run. */
  readonly emulated?: boolean;
  readonly log?: (line: string) => void;
}

/**
 * Builds what is out of date and returns the path of the addon.
 * @throws RunError saying what to install where there is no compiler, or what it said.
 */
export async function buildNative(options: BuildOptions = {}): Promise<string> {
  const { emulated = false, log = console.log } = options;
  const compiler = findCompiler();
  const units = listUnits({
    architecture: process.arch,
    objects: join(buildFolder, "objects"),
    emulated,
  });
  const started = performance.now();
  const compiled = await compileUnits(units, compiler, log);
  await linkAddon(addonPath, units, compiler, log, { started, again: compiled > 0 });
  return addonPath;
}

/**
 * Links objects into an addon where one of them changed or it is not there.
 * @throws RunError with what the linker said.
 */
export async function linkAddon(
  path: string,
  units: readonly Unit[],
  compiler: Compiler,
  log: (line: string) => void,
  { started, again }: { readonly started: number; readonly again: boolean },
): Promise<void> {
  const record = `${path}.digest`;
  const digests = units.map((unit) => recorded(`${unit.object}.digest`));
  const digest = createHash("sha256").update(digests.join()).digest("hex");
  if (!again && existsSync(path) && recorded(record) === digest) return;
  const temporary = `${path}.${process.pid}.tmp`;
  const undefinedSymbols = process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : [];
  await run(compiler.command, [
    "-shared",
    "-pthread",
    ...undefinedSymbols,
    ...units.map((unit) => unit.object),
    "-o",
    temporary,
  ]);
  renameSync(temporary, path);
  writeFileSync(record, digest);
  log(`built ${relative(root, path)} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}
