import { bytesPerElement, type DType, type TensorData } from "../../base/dtype.ts";
import { maximumElements } from "../../base/shape.ts";
import { type Graph, leavesOf } from "../../graph/graph.ts";
import type { PipelineStage, StageProgram } from "../../parallel/pipeline/cut.ts";
import type { ActionKind, ScheduleTable } from "../../parallel/pipeline/schedules.ts";
import type { Backend, Bindings, BoundExecutable, Executable, MemoryPlan } from "../../runtime/backend.ts";
import { type BufferPlan, planBuffers } from "./buffers.ts";

/** The kinds of programs that a chunk has. */
const kinds = ["forward", "backward", "weightGradient"] as const;
type Kind = (typeof kinds)[number];

/** Leaves that hold a micro-batch, by name. */
export type BatchMemory = Readonly<Record<string, TensorData>>;

/** A compiled program of a chunk, and the leaves of a batch that it reads. */
interface CompiledProgram {
  readonly program: StageProgram;
  readonly executable: Executable;
  /** Leaves of a batch, by name, with how many elements they have at most. */
  readonly batchLeaves: readonly {
    readonly name: string;
    readonly dtype: DType;
    readonly elements: number;
  }[];
  /** Programs with memory bound, by the buffers that they use. */
  readonly bound: Map<string, BoundExecutable>;
}

/** What the programs of a rank run on. */
export interface ProgramMemory {
  readonly backend: Backend;
  /** The memory of parameters and gradients, and of results, by name. */
  readonly bindings: Bindings;
}

/**
 * The programs of one rank's stages with the buffers between them: compiled once, and bound once to each set of
 * buffers that a schedule uses.
 */
export class StagePrograms {
  readonly #memory: ProgramMemory;
  readonly #stages: readonly PipelineStage[];
  readonly #programs: readonly Partial<Record<Kind, CompiledProgram>>[];
  readonly #plans = new Map<ScheduleTable, BufferPlan>();
  readonly #buffers = new Map<string, TensorData>();
  readonly #batches = new Map<string, BatchMemory>();

  /**
   * @param stages this rank's stages, by chunk
   * @param compile makes an executable of a stage's graph
   */
  constructor(
    memory: ProgramMemory,
    stages: readonly PipelineStage[],
    compile: (graph: Graph) => Executable,
  ) {
    this.#memory = memory;
    this.#stages = stages;
    this.#programs = stages.map((stage) => {
      const programs: Partial<Record<Kind, CompiledProgram>> = {};
      const held = new Set(stage.values.map(({ name }) => name));
      for (const kind of kinds) {
        const program = stage[kind];
        if (program === undefined) continue;
        const leaves = [...leavesOf(program.graph).values()].map(({ attributes }) => attributes);
        programs[kind] = {
          program,
          executable: compile(program.graph),
          bound: new Map(),
          batchLeaves: leaves
            .filter(({ name, kind }) => kind === "input" && !held.has(name) && !(name in memory.bindings))
            .map(({ name, shape, dtype }) => ({ name, dtype, elements: maximumElements(shape) })),
        };
      }
      return programs;
    });
  }

  /** The buffers for a rank's list of a table. */
  plan(table: ScheduleTable, rank: number): BufferPlan {
    const known = this.#plans.get(table);
    if (known !== undefined) return known;
    const plan = planBuffers(table.actions[rank]!, this.#stages);
    this.#plans.set(table, plan);
    return plan;
  }

  /** Bytes of all buffers of a plan, and of the batches that are kept meanwhile. */
  heldBytes({ pools, batches }: BufferPlan): number {
    const sizeOf = (elements: number, dtype: DType): number => elements * bytesPerElement(dtype);
    const values = pools.flatMap((pool) =>
      [...pool.values()].map(({ type, count }) => count * sizeOf(maximumElements(type.shape), type.dtype)),
    );
    const kept = batches.map((count, chunk) => {
      const leaves = Object.values(this.#programs[chunk]!).flatMap(({ batchLeaves }) => batchLeaves);
      const sizes = new Map(leaves.map(({ name, elements, dtype }) => [name, sizeOf(elements, dtype)]));
      return count * [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
    });
    return [...values, ...kept].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** One of a chunk's buffers for a stage value. */
  buffer(chunk: number, value: string, index: number): TensorData {
    const key = `${chunk} ${value} ${index}`;
    const known = this.#buffers.get(key);
    if (known !== undefined) return known;
    const { type } = this.#stages[chunk]!.values.find(({ name }) => name === value)!;
    const data = this.#memory.backend.allocate(type.dtype, maximumElements(type.shape));
    this.#buffers.set(key, data);
    return data;
  }

  /** Copies a batch to where a chunk's programs read it. */
  loadBatch(chunk: number, index: number, batch: BatchMemory): void {
    for (const [name, data] of Object.entries(this.#batch(chunk, index))) {
      const values = batch[name]!;
      data.set(values.length > data.length ? values.subarray(0, data.length) : values);
    }
  }

  /** A chunk's program with the buffers of a micro-batch; undefined where it has nothing to do. */
  bound(plan: BufferPlan, chunk: number, kind: Kind, microBatch: number): BoundExecutable | undefined {
    const compiled = this.#programs[chunk]![kind];
    if (compiled === undefined) return undefined;
    const { program, executable, bound, batchLeaves } = compiled;
    const values = [...program.reads, ...program.writes];
    const indices = values.map((value) => plan.bufferOf(chunk, microBatch, value));
    const batch = plan.batchOf(chunk, microBatch);
    const key = [batch, ...indices].join();
    const known = bound.get(key);
    if (known !== undefined) return known;
    const bindings: Record<string, TensorData> = { ...this.#memory.bindings };
    values.forEach((value, position) => {
      bindings[value] = this.buffer(chunk, value, indices[position]!);
    });
    const held = this.#batch(chunk, batch);
    for (const { name } of batchLeaves) bindings[name] = held[name]!;
    const made = executable.bind(bindings);
    bound.set(key, made);
    return made;
  }

  /** What the programs need: they run one after another, so that the largest arena and scratch serve all. */
  get memory(): MemoryPlan {
    const plans = this.#all.map(({ executable }) => executable.memory);
    const largest = (part: keyof MemoryPlan): number => Math.max(0, ...plans.map((plan) => plan[part]));
    const total = (part: keyof MemoryPlan): number => plans.reduce((sum, plan) => sum + plan[part], 0);
    return {
      arena: largest("arena"),
      scratch: largest("scratch"),
      prepared: total("prepared"),
      constants: total("constants"),
      bound: largest("bound"),
    };
  }

  /** Must be called after weights changed. */
  invalidateParameters(): void {
    for (const { executable } of this.#all) executable.invalidateParameters();
  }

  /** Frees native memory. */
  dispose(): void {
    for (const { executable } of this.#all) executable.dispose();
  }

  get #all(): CompiledProgram[] {
    return this.#programs.flatMap((programs) => Object.values(programs));
  }

  #batch(chunk: number, index: number): BatchMemory {
    const key = `${chunk} ${index}`;
    const known = this.#batches.get(key);
    if (known !== undefined) return known;
    const memory: Record<string, TensorData> = {};
    for (const { batchLeaves } of Object.values(this.#programs[chunk]!)) {
      for (const { name, dtype, elements } of batchLeaves)
        memory[name] ??= this.#memory.backend.allocate(dtype, elements);
    }
    this.#batches.set(key, memory);
    return memory;
  }
}

/** Which program an action runs. */
export function programOf(kind: ActionKind): Kind {
  switch (kind) {
    case "forward":
      return "forward";
    case "backward":
    case "input_gradient":
      return "backward";
    case "weight_gradient":
      return "weightGradient";
  }
}
