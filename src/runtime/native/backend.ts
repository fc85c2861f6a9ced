import { availableParallelism } from "node:os";
import { bytesPerElement, type DType, dtypeCode, type TensorData, viewOf } from "../../base/dtype.ts";
import { debugLevel, environmentVariables, readInteger, readVariable } from "../../base/environment.ts";
import { ConfigError, InternalError, RunError } from "../../base/errors.ts";
import { maximumElements, type SymbolValues } from "../../base/shape.ts";
import { type CompiledProgram, compileProgram } from "../../compiler/compile.ts";
import type { Program, StartStep, Step } from "../../compiler/plan/program.ts";
import type { Graph } from "../../graph/graph.ts";
import type {
  Backend,
  Bindings,
  BoundExecutable,
  CompileOptions,
  Executable,
  MemoryPlan,
  RunOptions,
  RunStatistics,
} from "../backend.ts";
import { collectBindings, collectSymbols } from "../bind.ts";
import { collectGroups } from "../bind_groups.ts";
import type { ProcessGroup } from "../group.ts";
import type { Store, StoreOptions } from "../store.ts";
import type { Trace } from "../trace.ts";
import {
  type Addon,
  type IsaName,
  loadAddon,
  type NativeBindings,
  type NativeContext,
  type NativeProgram,
  type NativeReport,
} from "./addon.ts";
import { encodeProgram } from "./encode.ts";
import { asCommunicationError } from "./group.ts";
import { askForMemory, isRefusal, outOfMemory } from "./memory.ts";
import { asStoreError, openNativeStore } from "./store.ts";

/** How the native backend runs. */
export interface NativeOptions {
  /** Threads that run kernels; `SLIPSTREAM_THREADS`, or one a core. */
  readonly threads?: number;
  /** The highest instruction set to use; `SLIPSTREAM_ISA`, or the machine's. */
  readonly isa?: IsaName;
  /** Records every step that runs. */
  readonly trace?: Trace;
  /**
   * An arena and threads of its own instead of those of the process: for ranks that share a process, whose programs
   * run side by side and wait for each other. `dispose` frees them.
   */
  readonly isolated?: boolean;
}

/** What the native backend chose. */
export interface NativeBackend extends Backend {
  readonly name: "native";
  readonly threads: number;
  readonly isa: IsaName;
  /** Lets go of threads and of memory between runs, once its executables are disposed. Nothing can be compiled then. */
  dispose(): void;
}

/**
 * The backend that runs programs with native kernels on the CPU.
 * @throws RunError where the addon is not built; ConfigError where SLIPSTREAM_ISA names what this machine
 * does not have.
 */
export function createNativeBackend(options: NativeOptions = {}): NativeBackend {
  const addon = loadAddon();
  const threads =
    options.threads ?? readInteger(environmentVariables.threads, 1, 256) ?? availableParallelism();
  const isa = chooseIsa(addon, options.isa);
  const context = addon.createContext(options.isolated === true);
  return {
    name: "native",
    threads,
    isa,
    allocate: (dtype: DType, elements: number): TensorData => allocate(addon, dtype, elements),
    populate: async (data: TensorData): Promise<void> => await addon.populate(data),
    measurePeak: async (dtype: DType): Promise<number> => measurePeak(addon, dtype, threads, isa),
    openStore: (folder: string, bytes: number, storeOptions?: StoreOptions): Store =>
      openNativeStore(addon, folder, bytes, storeOptions),
    compile: (graph: Graph, compileOptions: CompileOptions = {}): Executable => {
      const compiled = compileProgram(graph, compileOptions);
      return new NativeExecutable(
        addon,
        context,
        compiled,
        collectGroups(compiled.program.name, compiled.program.groups, compileOptions.groups),
        threads,
        isa,
        options.trace,
        compileOptions.stores,
      );
    },
    dispose: (): void => addon.releaseContext(context),
  };
}

function allocate(addon: Addon, dtype: DType, elements: number): TensorData {
  const bytes = elements * bytesPerElement(dtype);
  return askForMemory(`a tensor of ${elements} ${dtype} elements`, bytes, () =>
    viewOf(dtype, addon.allocate(bytes), 0, elements),
  );
}

function chooseIsa(addon: Addon, wanted: IsaName | undefined): IsaName {
  const name = wanted ?? readVariable(environmentVariables.isa);
  if (name === undefined) return addon.detectedIsa();
  if (!addon.canRunIsa(name)) {
    throw new ConfigError("unsupported_isa", `this machine cannot run kernels for "${name}"`, {
      where: environmentVariables.isa.name,
      expected: `${environmentVariables.isa.values}, up to ${addon.detectedIsa()} here`,
    });
  }
  return name as IsaName;
}

/** FLOP/s of the multiply-add units alone, best of a few short runs (a tenth of a second together). */
function measurePeak(addon: Addon, dtype: DType, threads: number, isa: IsaName): number {
  const flops = new Float32Array(1);
  const output = { data: flops, dtype: dtypeCode("f32"), shape: [1] };
  let best = 0;
  let iterations = 1000;
  for (const deadline = performance.now() + 100; performance.now() < deadline; ) {
    const started = performance.now();
    addon.runKernel("measure_peak", isa, [], [output], [dtype === "bf16" ? 1 : 0, iterations], threads);
    const milliseconds = performance.now() - started;
    best = Math.max(best, flops[0]! / (milliseconds / 1000));
    if (milliseconds < 5) iterations *= 4;
  }
  return best;
}

/** Bytes of all bindings of a program with every symbol at its bound. */
function boundBytes(program: Program): number {
  return program.bindings.reduce(
    (total, binding) => total + maximumElements(binding.shape) * bytesPerElement(binding.dtype),
    0,
  );
}

class NativeExecutable implements Executable {
  readonly memory: MemoryPlan;
  readonly flops: number;
  readonly #addon: Addon;
  readonly #program: Program;
  readonly #threads: number;
  readonly #trace: Trace | undefined;
  readonly #timings = debugLevel() >= 1;
  readonly #stores: readonly Store[];
  /** By ticket. */
  readonly #starts: readonly StartStep[];
  #native: NativeProgram | undefined;
  #prepared = false;

  constructor(
    addon: Addon,
    context: NativeContext,
    compiled: CompiledProgram,
    groups: readonly ProcessGroup[],
    threads: number,
    isa: IsaName,
    trace: Trace | undefined,
    stores: ReadonlyMap<string, Store> = new Map(),
  ) {
    const { program, flops } = compiled;
    this.#stores = [...stores.values()];
    this.#addon = addon;
    this.#program = program;
    this.#starts = program.steps.filter((step) => step.kind === "start");
    this.#threads = threads;
    this.#trace = trace;
    this.flops = flops;
    const natives = groups.map(({ native }) => native);
    const { words, kernels, labels } = encodeProgram(
      program,
      new Map([...stores].map(([name, store]) => [name, store.native as number])),
    );
    this.#native = askForMemory(
      `what program ${program.name} keeps while it runs`,
      program.arenaBytes + program.preparedBytes,
      () => addon.createProgram(context, words, kernels, isa, program.constants, natives, labels),
    );
    this.memory = {
      arena: program.arenaBytes,
      prepared: program.preparedBytes,
      constants: program.constants.reduce((total, data) => total + data.byteLength, 0),
      bound: boundBytes(program),
      scratch: 0,
    };
  }

  async run(
    bindings: Bindings,
    symbols: SymbolValues = {},
    options: RunOptions = {},
  ): Promise<RunStatistics> {
    return await this.#run(collectBindings(this.#program, bindings, symbols), symbols, options);
  }

  bind(bindings: Bindings): BoundExecutable {
    const bounds = Object.fromEntries(this.#program.symbols.map(({ name, bound }) => [name, bound]));
    const memory = this.#addon.bindMemory(collectBindings(this.#program, bindings, bounds));
    return { run: async (symbols = {}, options = {}) => await this.#run(memory, symbols, options) };
  }

  async #run(
    memory: readonly TensorData[] | NativeBindings,
    symbols: SymbolValues,
    options: RunOptions,
  ): Promise<RunStatistics> {
    if (this.#native === undefined) throw new InternalError(`program ${this.#program.name} was disposed`);
    const values = collectSymbols(this.#program, symbols);
    const checkFinite = options.checkFinite === true;
    const prepare = (!this.#prepared || checkFinite) && this.#program.prepare.length > 0;
    const started = this.#trace?.now() ?? 0;
    const report = await this.#addon
      .runProgram(
        this.#native,
        this.#threads,
        memory,
        values,
        prepare,
        checkFinite,
        this.#trace !== undefined,
      )
      .catch((error: unknown) => {
        this.#drain();
        throw isRefusal(error)
          ? outOfMemory(`the work space of program ${this.#program.name}`, undefined, error)
          : asCommunicationError(asStoreError(error));
      });
    if (report.failedStep >= 0) this.#drain();
    // A run that stopped early may have left some of it undone.
    this.#prepared = report.failedStep < 0;
    this.#record(started, report, prepare);
    if (this.#timings) {
      const [whole, kernels] = [report.seconds, report.kernelSeconds].map((seconds) =>
        (seconds * 1e3).toFixed(3),
      );
      process.stderr.write(`program ${this.#program.name}: ${whole} ms, ${kernels} ms of it in kernels\n`);
    }
    if (report.failedStep >= 0) throw this.#notFinite(report.failedStep, report.failedOutput);
    const { seconds, kernelSeconds, waitSeconds } = report;
    return { seconds, kernelSeconds, waitSeconds };
  }

  /** Transfers of a run that ended early must not reach memory that the next one uses. */
  #drain(): void {
    for (const store of this.#stores) store.drain();
  }

  invalidateParameters(): void {
    this.#prepared = false;
  }

  dispose(): void {
    if (this.#native !== undefined) this.#addon.releaseProgram(this.#native);
    this.#native = undefined;
  }

  #notFinite(index: number, output: number): RunError {
    const step = [...this.#program.prepare, ...this.#program.steps][index]!;
    const op = step.kind === "wait" ? step.op : nameOf(step);
    const scope = step.scope === "" ? "outside of any module" : step.scope;
    return new RunError(
      "not_finite",
      `a result that is not finite (NaN or infinity) first appeared in ${op}`,
      {
        where: `${scope} (output ${output} of ${op}, step ${index} of program ${this.#program.name})`,
        hint: "lower the learning rate, clip gradients, or check the data of this batch",
      },
    );
  }

  #record(started: number, report: NativeReport, prepared: boolean): void {
    const trace = this.#trace;
    if (trace === undefined) return;
    const { seconds, stepSeconds, collectiveSeconds } = report;
    trace.span("program", this.#program.name, "program", started, started + seconds);
    const steps = prepared ? [...this.#program.prepare, ...this.#program.steps] : this.#program.steps;
    for (let index = 0; index * 2 + 1 < stepSeconds.length; index++) {
      const step = steps[index];
      if (step === undefined) break;
      const name = nameOf(step);
      const begin = started + stepSeconds[index * 2]!;
      trace.span("kernels", name, "kernel", begin, started + stepSeconds[index * 2 + 1]!, {
        scope: step.scope,
      });
      if (step.kind !== "wait") continue;
      const start = this.#starts[step.ticket]!;
      const [begun, ended] = collectiveSeconds.subarray(2 * step.ticket, 2 * step.ticket + 2);
      const lane = trace.laneOf(`ranks over ${this.#program.groups[start.group]!.axes}`);
      trace.span(lane, step.op, "collective", started + begun!, started + ended!, { scope: step.scope });
    }
  }
}

/** A step as traces call it, and errors where it is a kernel. */
function nameOf(step: Step): string {
  switch (step.kind) {
    case "kernel":
      return step.op;
    case "start":
      return `start ${step.op}`;
    case "wait":
      return `wait for ${step.op}`;
    case "store":
      return "store";
    case "transfer":
      return step.action;
  }
}
