import { formatBytes } from "../../base/bytes.ts";
import { describeMesh } from "../config/index.ts";
import { grouped } from "../view/text.ts";
import type { MemoryByKind, TrainingPlan } from "./plan.ts";
import { describeLayout, type PlannedLayout } from "./search.ts";

const kindNames: { readonly [Kind in keyof MemoryByKind]: string } = {
  parameters: "parameters (float32)",
  gradients: "gradients",
  optimizer: "optimizer states",
  residuals: "unsent gradients",
  activations: "activations",
  waiting: "between stages",
  packedWeights: "packed weights",
  constants: "constants",
  scratch: "kernel work space",
  evaluation: "evaluation",
  data: "batches",
  baseline: "the process itself",
};

function withUnit(value: number, units: readonly string[]): string {
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  const scaled = value / 1000 ** power;
  return `${power === 0 ? Math.round(scaled) : scaled.toPrecision(3)} ${units[power]}`;
}

function formatFlops(flops: number): string {
  return withUnit(flops, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"]);
}

function formatSeconds(seconds: number): string {
  return seconds < 1 ? `${(seconds * 1000).toPrecision(3)} ms` : `${seconds.toPrecision(3)} s`;
}

/** Rows of two or three columns, the first to the left and the others to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows.reduce<number[]>((most, row) => {
    return row.map((cell, column) => Math.max(cell.length, most[column] ?? 0));
  }, []);
  return rows.map((row) => {
    const cells = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!),
    );
    return `  ${cells.join("  ")}`.trimEnd();
  });
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)}%`;
}

/** The layouts that a search found, the best first. @param found how many there were */
export function formatLayouts(layouts: readonly PlannedLayout[], found = layouts.length): string {
  const rows = layouts.map((layout) => {
    const { plan } = layout;
    const { seconds, tokensPerSecond, exposed, bubble, utilization } = plan.time!;
    const { microBatchSize, accumulationSteps } = plan.batch;
    const sent = plan.ranks[0]!.communication.reduce((sum, { bytes }) => sum + bytes, 0);
    return [
      describeLayout(layout),
      `${accumulationSteps} x ${microBatchSize}`,
      grouped(tokensPerSecond),
      formatSeconds(seconds),
      formatSeconds(exposed),
      percent(bubble),
      formatBytes(sent),
      formatBytes(plan.memory.total),
      percent(utilization),
    ];
  });
  const head = ["layout", "batch", "tokens/s", "step", "waiting", "bubble", "sent", "memory", "MFU"];
  const shown = layouts.length === found ? `${found}` : `the best ${layouts.length} of ${found}`;
  return [
    `layouts that fit: ${shown}`,
    ...table([head, ...rows]),
    "  batch: micro-batches x rows of a rank; waiting: for collectives; sent, memory: of a rank; MFU: model FLOPs utilisation",
  ].join("\n");
}

/** What several ranks pass to each other in a step, and how they wait. */
function communicationLines({ ranks, time, mesh }: TrainingPlan): string[] {
  const [first] = ranks;
  if (first === undefined || describeMesh(mesh) === "one rank") return [];
  const rows = first.communication.map(({ axes, bytes, messages, seconds }) => [
    axes,
    formatBytes(bytes),
    `${grouped(messages)} messages`,
    seconds === undefined ? "" : formatSeconds(seconds),
  ]);
  const lines = ["", `communication of a rank in a step, over ${describeMesh(mesh)}`, ...table(rows)];
  if (time === undefined) return lines;
  const waits = table([
    ["kernels", formatSeconds(time.compute)],
    ["waiting for collectives", formatSeconds(time.exposed)],
    ["pipeline bubble", `${(100 * time.bubble).toFixed(1)}%`],
  ]);
  return [...lines, "", "where the slowest rank's time goes", ...waits];
}

/** What a rank keeps on disk, and what the process of several ranks takes. */
function placeLines({ ranks, process }: TrainingPlan): string[] {
  const disk = ranks[0]?.disk;
  return [
    ...(disk === undefined
      ? []
      : [
          "",
          `disk${ranks.length > 1 || process !== undefined ? " of a rank" : ""}: ${formatBytes(disk.bytes)}`,
          ...table([
            ["read in a step", formatBytes(disk.readBytes)],
            ["written in a step", formatBytes(disk.writtenBytes)],
          ]),
        ]),
    ...(process === undefined
      ? []
      : ["", `memory of a process with all ${process.ranks} ranks: ${formatBytes(process.memory.total)}`]),
  ];
}

/** A plan as `slipstream plan` prints it. @param available the memory of a rank, where a cluster says it */
export function formatPlan(plan: TrainingPlan, available?: number): string {
  const { parameters, batch, memory, flops, time, dtype } = plan;
  const room =
    available === undefined
      ? ""
      : ` of ${formatBytes(available)}${memory.total > available ? ": does not fit" : ""}`;
  const whose = describeMesh(plan.mesh) === "one rank" ? "" : " of a rank";
  const kinds = Object.keys(kindNames) as (keyof MemoryByKind)[];
  const share = (bytes: number): string => `${((100 * bytes) / memory.total).toFixed(1)}%`;
  const memoryRows = kinds
    .filter((kind) => memory[kind] > 0)
    .map((kind) => [kindNames[kind], formatBytes(memory[kind]), share(memory[kind])]);
  const frozen = parameters.total - parameters.trained;
  const lines = [
    `parameters: ${grouped(parameters.total)}${frozen === 0 ? "" : `, of which ${grouped(frozen)} are frozen`}`,
    ...table(
      parameters.modules.map(({ name, modules, parameters: count }) => [
        modules === 1 ? name : `${name} (${modules})`,
        grouped(count),
      ]),
    ),
    "",
    `a step: ${grouped(batch.tokensPerStep)} tokens in ${dtype}, as ${batch.accumulationSteps} x ${grouped(batch.microBatchTokens)}`,
    ...table([
      ["model", formatFlops(flops.model)],
      ["with everything that runs", formatFlops(flops.hardware)],
      ["6 x parameters x tokens", formatFlops(flops.sixND)],
    ]),
    "",
    `memory${whose}: ${formatBytes(memory.total)}${room}`,
    ...table(memoryRows),
    ...placeLines(plan),
    ...communicationLines(plan),
  ];
  if (time === undefined) return lines.join("\n");
  const { machine } = time;
  return [
    ...lines,
    "",
    `time of a step: at least ${formatSeconds(time.seconds)}, ${grouped(time.tokensPerSecond)} tokens/s`,
    ...table([
      ["products", `${formatFlops(machine.flops)}/s`],
      ["memory", `${withUnit(machine.bandwidth, ["B", "kB", "MB", "GB", "TB"])}/s`],
      ["model FLOPs utilisation", `${(100 * time.utilization).toFixed(1)}%`],
    ]),
  ].join("\n");
}
