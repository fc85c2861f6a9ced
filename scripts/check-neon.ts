/**
 * Runs every NEON kernel against its scalar twin (test/native/neon_check.cc): on an arm64 machine as it is,
 * on others compiled with GCC's cross compiler and run by QEMU. Not part of `npm test`: it compiles the
 * kernels a second time.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { RunError, SlipstreamError } from "../src/base/errors.ts";
import { type Compiler, compileUnits, findCompiler, listUnits, run } from "../src/runtime/native/build.ts";

const folder = join(import.meta.dirname, "../build/arm64");
const emulator = process.arch === "arm64" ? undefined : "qemu-aarch64";

function findCrossCompiler(): Compiler {
  const command = "aarch64-linux-gnu-g++";
  const result = spawnSync(command, ["--version"], { encoding: "utf8" });
  const missing = [
    ...(result.status === 0 ? [] : [command]),
    ...(spawnSync("qemu-aarch64", ["--version"]).status === 0 ? [] : ["qemu-aarch64"]),
  ];
  if (missing.length > 0) {
    throw new RunError("no_cross_compiler", "checking the NEON kernels on this machine takes an emulator", {
      expected: "aarch64-linux-gnu-g++ and qemu-aarch64 on the PATH",
      received: `no ${missing.join(", no ")}`,
      hint: "Debian, Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user    or run this on an arm64 machine",
    });
  }
  return { command, version: result.stdout.split("\n")[0] ?? "" };
}

/** Compiles and runs the check; returns whether every kernel passed. */
async function checkNeon(): Promise<boolean> {
  const compiler = emulator === undefined ? findCompiler() : findCrossCompiler();
  const units = listUnits({ architecture: "arm64", objects: join(folder, "objects") });
  const source = "test/native/neon_check.cc";
  const check = { source, object: join(folder, "objects/neon_check.o"), flags: units[0]?.flags ?? [] };
  await compileUnits([...units, check], compiler, console.log);
  const program = join(folder, "neon_check");
  const objects = [...units.filter((unit) => !unit.source.startsWith("native/binding/")), check];
  await run(compiler.command, [
    "-pthread",
    ...(emulator === undefined ? [] : ["-static"]),
    ...objects.map((unit) => unit.object),
    "-o",
    program,
  ]);
  const command = emulator === undefined ? [program] : [emulator, program];
  const result = spawnSync(command[0]!, command.slice(1), { stdio: "inherit" });
  if (result.signal !== null) console.error(`the check was ended by ${result.signal}`);
  return result.status === 0;
}

try {
  if (!(await checkNeon())) process.exitCode = 1;
} catch (error) {
  console.error(error instanceof SlipstreamError ? error.message : error);
  process.exitCode = 1;
}
