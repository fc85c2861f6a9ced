import { expect, test } from "vitest";
import { countKernelVariants, type DoctorReport, formatReport } from "./report.ts";

const report: DoctorReport = {
  slipstream: { version: "1.2.3", folder: "/opt/slipstream/" },
  node: { version: "24.1.0", path: "/usr/bin/node" },
  backend: { name: "native", why: "the native code is built and loads", addonBuilt: true },
  instructionSet: {
    inUse: "avx2",
    detected: "avx2",
    forced: null,
    levels: [
      { isa: "avx512", status: "absent", why: "the processor lacks avx512f" },
      { isa: "avx2", status: "in use", why: "the highest that this machine can run" },
      { isa: "scalar", status: "available", why: "for kernels without a higher variant" },
    ],
    features: { avx2: true },
  },
  kernels: { matmul: ["scalar", "avx2", "avx512"], store: ["scalar"], fill: ["avx2", "scalar"] },
  threads: { count: 4, why: "SLIPSTREAM_THREADS asks for it" },
  machine: {
    processor: "Some CPU",
    platform: "linux",
    architecture: "x64",
    cores: 8,
    memory: 16 * 2 ** 30,
    memoryAvailable: 3 * 2 ** 29,
  },
  compiler: { command: "g++", version: "g++ 12.2.0" },
  mpi: { library: null, mpirun: null, compiler: null },
  environment: { SLIPSTREAM_THREADS: "4" },
  problems: [],
};

test("kernels are counted by the variant that would run", () => {
  expect(countKernelVariants(report.kernels, report.instructionSet.levels)).toBe("3: 2 in avx2, 1 in scalar");
});

test("the table has a row for everything that was found", () => {
  expect(formatReport(report)).toBe(
    [
      "Slipstream          1.2.3      /opt/slipstream/",
      "Node                24.1.0     /usr/bin/node",
      "processor           Some CPU",
      "system              linux x64",
      "cores               8",
      "memory              16.0 GiB   1.5 GiB available",
      "backend             native     the native code is built and loads",
      "threads             4          SLIPSTREAM_THREADS asks for it",
      "instruction set     avx2",
      "  avx512            absent     the processor lacks avx512f",
      "  avx2              in use     the highest that this machine can run",
      "  scalar            available  for kernels without a higher variant",
      "kernels             3: 2 in avx2, 1 in scalar",
      "compiler            g++        g++ 12.2.0",
      "MPI                 none       not needed for ranks of one process; for more: install it (Debian, Ubuntu: apt-get install libopenmpi-dev openmpi-bin), npx slipstream build",
      "mpirun              none       starts ranks of many processes",
      "SLIPSTREAM_THREADS  4          set in the environment",
      "",
      "No problems found.",
    ].join("\n"),
  );
});

test("problems are listed at the end", () => {
  expect(formatReport({ ...report, problems: ["one", "two"] })).toMatch(/2 problems:\n- one\n- two$/);
});
