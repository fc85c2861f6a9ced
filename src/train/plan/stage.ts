import type { SymbolValues } from "../../base/shape.ts";
import { Mesh, type MeshPlace, type MeshSizes, meshAxes } from "../../parallel/mesh.ts";
import type { Machine, PlannedExecutable } from "../../runtime/planning.ts";
import type { BatchSizes } from "../config/index.ts";
import type { TrainingEngine } from "../engine.ts";
import { buildEngine } from "../setup.ts";
import { splitModel } from "../split_model.ts";
import type { MemoryByKind, PlannedCommunication, PlannedDisk, PlanParts } from "./plan.ts";
import { type PlannedProgram, planRank, recordPrograms } from "./planned_rank.ts";

/** A rank of one stage of the pipeline, with the programs that it would run. */
export interface PlannedStage {
  readonly place: MeshPlace;
  readonly engine: TrainingEngine;
  readonly modelFlops: number;
  readonly programs: readonly PlannedProgram[];
  /** The program of evaluation, where there is validation data. */
  readonly evaluation: PlannedExecutable | undefined;
  readonly batch: BatchSizes;
  readonly microBatchTokens: number;
  readonly symbols: SymbolValues;
}

/** Builds the engine of the first rank of a stage on the null backend. */
export async function planStage(
  { config, model, backend, baselineBytes, ranksInProcess = 1 }: PlanParts,
  sizes: MeshSizes,
  batch: BatchSizes,
  stage: number,
): Promise<PlannedStage> {
  const recording = recordPrograms(backend);
  const rank = new Mesh(sizes, 0).rankAt({ pipeline: stage, data: 0, expert: 0, sequence: 0, tensor: 0 });
  const mesh = new Mesh(sizes, rank);
  const alone = meshAxes.every((axis) => sizes[axis] === 1);
  const split = alone
    ? undefined
    : await splitModel(config, batch, model, await planRank(mesh, ranksInProcess));
  const engine = buildEngine(config, batch, model, recording, split, baselineBytes);
  const training = recording.programs();
  const microBatchTokens = batch.microBatchSize * config.data.sequence_length;
  // The stages of a pipeline would wait for each other.
  const evaluates = config.data.validation !== undefined && sizes.pipeline === 1;
  if (evaluates) await engine.evaluate(emptyBatch(batch, microBatchTokens));
  return {
    place: mesh.place,
    engine,
    modelFlops: engine.modelFlops,
    programs: training,
    evaluation: recording.programs()[training.length]?.executable,
    batch,
    microBatchTokens,
    // Programs that are split over these axes count groups of tokens.
    symbols: {
      tokens: Math.ceil(microBatchTokens / (sizes.tensor * sizes.sequence)),
      offsets: batch.microBatchSize + 1,
    },
  };
}

function emptyBatch({ microBatchSize: rows }: BatchSizes, tokens: number) {
  const ids = new Int32Array(tokens);
  const offsets = Int32Array.from({ length: rows + 1 }, (_, row) => (row * tokens) / rows);
  return { tokens: ids, targets: ids, positions: ids, offsets, targetCount: tokens };
}

/** How often a program runs in a step. */
export function runsOf({ name }: PlannedProgram, { accumulationSteps }: BatchSizes): number {
  return name === "clear" || name === "copy" || name === "norm" || name === "update" ? 1 : accumulationSteps;
}

/** Operations of one step on this rank. */
export function hardwareFlops({ programs, batch, symbols }: PlannedStage): number {
  return programs.reduce(
    (total, program) => total + runsOf(program, batch) * program.executable.cost(symbols).flops,
    0,
  );
}

/** Resident memory of a rank by what it is for. */
export function memoryOf(stage: PlannedStage, baseline: number): MemoryByKind {
  const { engine, programs, evaluation, batch, microBatchTokens } = stage;
  const { residuals, ...states } = engine.residentBytes;
  const all = [
    ...programs.map(({ executable }) => executable),
    ...(evaluation === undefined ? [] : [evaluation]),
  ];
  const sum = (kind: "prepared" | "constants"): number =>
    programs.reduce((total, { executable }) => total + executable.memory[kind], 0);
  // Tokens, targets and positions, and where each row begins.
  const batchBytes = 4 * (3 * microBatchTokens + batch.microBatchSize + 1);
  return {
    ...states,
    residuals,
    // One arena serves every program: they run one after another.
    activations: Math.max(...all.map(({ memory }) => memory.arena)),
    waiting: engine.between?.heldBytes ?? 0,
    packedWeights: sum("prepared"),
    constants: sum("constants"),
    // The thread pool's work space serves every program.
    scratch: Math.max(...all.map(({ memory }) => memory.scratch)),
    evaluation: evaluation === undefined ? 0 : evaluation.memory.prepared + evaluation.memory.constants,
    data: batch.accumulationSteps * batchBytes,
    baseline,
  };
}

/** What a rank keeps on disk, and what a step moves. */
export function diskOf({ engine, programs, batch }: PlannedStage): PlannedDisk | undefined {
  if (engine.diskBytes === 0) return undefined;
  let [readBytes, writtenBytes] = [0, 0];
  for (const program of programs) {
    const moved = program.executable.diskTraffic();
    readBytes += runsOf(program, batch) * moved.readBytes;
    writtenBytes += runsOf(program, batch) * moved.writtenBytes;
  }
  return { bytes: engine.diskBytes, readBytes, writtenBytes };
}

/** What a rank passes to others in a step, by axes. */
export function communicationOf(stage: PlannedStage, machine: Machine | undefined): PlannedCommunication[] {
  const total = new Map<string, { bytes: number; messages: number }>();
  for (const program of stage.programs) {
    const runs = runsOf(program, stage.batch);
    for (const [axes, { bytes, messages }] of program.executable.communication(stage.symbols)) {
      const present = total.get(axes) ?? { bytes: 0, messages: 0 };
      total.set(axes, { bytes: present.bytes + runs * bytes, messages: present.messages + runs * messages });
    }
  }
  for (const { bytes, messages } of stage.engine.between?.sent ?? []) {
    const present = total.get("pipeline") ?? { bytes: 0, messages: 0 };
    const runs = stage.batch.accumulationSteps;
    total.set("pipeline", {
      bytes: present.bytes + runs * bytes,
      messages: present.messages + runs * messages,
    });
  }
  return [...total].map(([axes, sent]) => {
    const link = machine?.links?.get(axes);
    if (link === undefined) return { axes, ...sent };
    return { axes, ...sent, seconds: sent.messages * link.latency + sent.bytes / link.bandwidth };
  });
}
