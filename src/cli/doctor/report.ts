import type { InstructionSetLevel } from "./instruction_sets.ts";
import type { FoundTool } from "./tools.ts";

/** What `slipstream doctor` found; `--json` prints it as it is. Sizes are bytes. */
export interface DoctorReport {
  readonly slipstream: { readonly version: string; readonly folder: string };
  readonly node: { readonly version: string; readonly path: string };
  readonly backend: {
    /** `native` where the addon loads; `reference` (slow, float64) is all there is otherwise. */
    readonly name: "native" | "reference";
    readonly why: string;
    readonly addonBuilt: boolean;
  };
  readonly instructionSet: {
    /** What kernels use; null where that cannot be known or is not allowed. */
    readonly inUse: string | null;
    readonly detected: string | null;
    /** The value of SLIPSTREAM_ISA. */
    readonly forced: string | null;
    readonly levels: readonly InstructionSetLevel[];
    /** Features of the processor that the levels ask for; null where the system does not list them. */
    readonly features: Readonly<Record<string, boolean>> | null;
  };
  /** Variants of every kernel, by name. */
  readonly kernels: Readonly<Record<string, readonly string[]>>;
  readonly threads: { readonly count: number; readonly why: string };
  readonly machine: {
    readonly processor: string;
    readonly platform: string;
    readonly architecture: string;
    readonly cores: number;
    readonly memory: number;
    readonly memoryAvailable: number;
  };
  readonly compiler: FoundTool | null;
  readonly mpi: {
    /** What MPI says of itself, where Slipstream's MPI addon is built and loads. */
    readonly library: string | null;
    readonly mpirun: FoundTool | null;
    readonly compiler: FoundTool | null;
  };
  /** The variables of Slipstream that are set. */
  readonly environment: Readonly<Record<string, string>>;
  /** What keeps Slipstream from running well here, each with what to do. */
  readonly problems: readonly string[];
}

const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** Kernels counted by the variant that would run: `7 avx512bf16, 20 avx512, 12 scalar`. */
export function countKernelVariants(
  kernels: Readonly<Record<string, readonly string[]>>,
  levels: readonly InstructionSetLevel[],
): string {
  const usable = levels.filter(({ status }) => status === "in use" || status === "available");
  const counts = new Map<string, number>();
  for (const variants of Object.values(kernels)) {
    const best = usable.find(({ isa }) => variants.includes(isa));
    if (best !== undefined) counts.set(best.isa, (counts.get(best.isa) ?? 0) + 1);
  }
  const parts = usable.filter(({ isa }) => counts.has(isa)).map(({ isa }) => `${counts.get(isa)} in ${isa}`);
  return `${Object.keys(kernels).length}: ${parts.join(", ")}`;
}

function adviseMpi(compilerFound: boolean): string {
  const install = compilerFound
    ? ""
    : "install it (Debian, Ubuntu: apt-get install libopenmpi-dev openmpi-bin), ";
  return `not needed for ranks of one process; for more: ${install}npx slipstream build`;
}

/** A row of the table: what, its value, and why or where. */
type Row = readonly [label: string, value: string, note?: string];

function rowsOf(report: DoctorReport): Row[] {
  const { backend, instructionSet, machine, threads, compiler, mpi, node } = report;
  const rows: Row[] = [
    ["Slipstream", report.slipstream.version, report.slipstream.folder],
    ["Node", node.version, node.path],
    ["processor", machine.processor],
    ["system", `${machine.platform} ${machine.architecture}`],
    ["cores", String(machine.cores)],
    ["memory", gibibytes(machine.memory), `${gibibytes(machine.memoryAvailable)} available`],
    ["backend", backend.name, backend.why],
    ["threads", String(threads.count), threads.why],
    ["instruction set", instructionSet.inUse ?? "unknown"],
    ...instructionSet.levels.map(({ isa, status, why }): Row => [`  ${isa}`, status, why]),
  ];
  if (backend.addonBuilt) {
    rows.push(["kernels", countKernelVariants(report.kernels, instructionSet.levels)]);
  }
  rows.push([
    "compiler",
    compiler?.command ?? "none",
    compiler?.version ?? "needed to build the native code",
  ]);
  rows.push(
    mpi.library === null
      ? ["MPI", "none", adviseMpi(mpi.compiler !== null)]
      : ["MPI", "ready", mpi.library.split("\n")[0]!],
    [
      "mpirun",
      mpi.mpirun === null ? "none" : "found",
      mpi.mpirun?.version ?? "starts ranks of many processes",
    ],
  );
  rows.push(
    ...Object.entries(report.environment).map(
      ([name, value]): Row => [name, value, "set in the environment"],
    ),
  );
  return rows;
}

/** The report as a table for people, with the problems, if any, at the end. */
export function formatReport(report: DoctorReport): string {
  const rows = rowsOf(report);
  const labels = Math.max(...rows.map(([label]) => label.length));
  const values = Math.max(
    ...rows.filter(([, , note]) => note !== undefined).map(([, value]) => value.length),
  );
  const lines = rows.map(([label, value, note]) =>
    note === undefined
      ? `${label.padEnd(labels)}  ${value}`
      : `${label.padEnd(labels)}  ${value.padEnd(values)}  ${note}`,
  );
  const verdict =
    report.problems.length === 0
      ? ["No problems found."]
      : [
          report.problems.length === 1 ? "1 problem:" : `${report.problems.length} problems:`,
          ...report.problems.map((problem) => `- ${problem}`),
        ];
  return [...lines, "", ...verdict].join("\n");
}
