import { availableParallelism } from "node:os";
import { bytesPerElement, type DType, type TensorData, viewOf } from "../../base/dtype.ts";
import { environmentVariables, readInteger } from "../../base/environment.ts";
import { InternalError, ShapeError } from "../../base/errors.ts";
import { formatShape, maximumElements, type SymbolValues } from "../../base/shape.ts";
import { type CompiledProgram, compileProgram } from "../../compiler/compile.ts";
import type { Program } from "../../compiler/plan/program.ts";
import type { Graph } from "../../graph/graph.ts";
import { graphCost } from "../../graph/rules/cost.ts";
import type { Bindings, BoundExecutable, CompileOptions, MemoryPlan, RunStatistics } from "../backend.ts";
import { collectSymbols } from "../bind.ts";
import type {
  CommunicationCost,
  DiskTraffic,
  Machine,
  PlannedExecutable,
  PlanningBackend,
  RunCost,
  RunTime,
} from "../planning.ts";
import { alignRegion, type Store } from "../store.ts";
import { scratchBytes } from "./scratch.ts";
import { communicationCost, simulate } from "./simulate.ts";

/** How the null backend counts. */
export interface NullOptions {
  /** Threads whose work space is counted; `SLIPSTREAM_THREADS`, or one a core. */
  readonly threads?: number;
}

/**
 * The backend that plans programs in full, for machines of any size, and runs nothing. `allocate` gives an
 * empty array whatever is asked: the memory is counted, never taken. `run` checks that everything is bound and
 * that symbols are in their bounds, and leaves all memory as it is.
 */
export function createNullBackend(options: NullOptions = {}): PlanningBackend {
  const threads =
    options.threads ?? readInteger(environmentVariables.threads, 1, 256) ?? availableParallelism();
  return {
    name: "null",
    allocate: (dtype: DType, _elements: number): TensorData => viewOf(dtype, new ArrayBuffer(0)),
    openStore: (folder: string, bytes: number): Store => countedStore(folder, bytes),
    compile: (graph: Graph, options: CompileOptions = {}): PlannedExecutable =>
      new NullExecutable(compileProgram(graph, options), threads),
  };
}

/** A store that takes no space and moves nothing. */
function countedStore(folder: string, bytes: number): Store {
  const nothing = async (): Promise<void> => {};
  return {
    folder,
    bytes: alignRegion(bytes),
    direct: true,
    read: nothing,
    write: nothing,
    traffic: () => ({ readBytes: 0, writtenBytes: 0, readSeconds: 0, writeSeconds: 0 }),
    drain: () => {},
    native: undefined,
    close: () => {},
  };
}

class NullExecutable implements PlannedExecutable {
  readonly memory: MemoryPlan;
  readonly flops: number;
  readonly #graph: Graph;
  readonly #program: Program;
  #disposed = false;

  constructor({ graph, program, flops }: CompiledProgram, threads: number) {
    this.#graph = graph;
    this.#program = program;
    this.flops = flops;
    this.memory = {
      arena: program.arenaBytes,
      prepared: program.preparedBytes,
      constants: program.constants.reduce((total, data) => total + data.byteLength, 0),
      bound: program.bindings.reduce(
        (total, { shape, dtype }) => total + maximumElements(shape) * bytesPerElement(dtype),
        0,
      ),
      scratch: scratchBytes(graph, threads),
    };
  }

  cost(symbols?: SymbolValues): RunCost {
    return graphCost(this.#graph, symbols);
  }

  seconds(machine: Machine, symbols?: SymbolValues): number {
    return this.time(machine, symbols).seconds;
  }

  communication(symbols?: SymbolValues): CommunicationCost {
    return communicationCost(this.#graph, symbols);
  }

  diskTraffic(): DiskTraffic {
    const { steps, tensors } = this.#program;
    const bytesOf = (action: "load" | "save"): number =>
      steps.reduce((sum, step) => {
        if (step.kind !== "transfer" || step.action !== action) return sum;
        const { shape, dtype } = tensors[step.tensor]!;
        return sum + maximumElements(shape) * bytesPerElement(dtype);
      }, 0);
    return { readBytes: bytesOf("load"), writtenBytes: bytesOf("save") };
  }

  time(machine: Machine, symbols?: SymbolValues): RunTime {
    return simulate(this.#graph, machine, symbols);
  }

  bind(bindings: Bindings): BoundExecutable {
    return { run: async (symbols) => await this.run(bindings, symbols) };
  }

  async run(bindings: Bindings, symbols: SymbolValues = {}): Promise<RunStatistics> {
    if (this.#disposed) throw new InternalError(`program ${this.#program.name} was disposed`);
    collectSymbols(this.#program, symbols);
    for (const { name, role, shape, dtype } of this.#program.bindings) {
      if (bindings[name] !== undefined) continue;
      throw new ShapeError("binding_missing", `nothing is bound to "${name}"`, {
        where: `program ${this.#program.name}`,
        expected: `${dtype}${formatShape(shape)} (${role})`,
      });
    }
    return { seconds: 0, kernelSeconds: 0 };
  }

  invalidateParameters(): void {}

  dispose(): void {
    this.#disposed = true;
  }
}
