import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { RunError } from "../../base/errors.ts";

/** A tensor as the addon takes it: `data` null means an absent optional operand. */
export interface NativeTensor {
  readonly data: ArrayBufferView | null;
  /** The code of `dtypeCode`. */
  readonly dtype: number;
  readonly shape: readonly number[];
}

/** Instruction sets by name; `amx_emulated` is for tests only. */
export type IsaName = "scalar" | "neon" | "avx2" | "avx512" | "avx512bf16" | "amx" | "amx_emulated";

/** Where programs run, held by native code: an arena, kernel threads and a thread of its own. */
export type NativeContext = { readonly opaque: "context" };

/** A program held by native code. */
export type NativeProgram = { readonly opaque: "program" };

/** Memory of all bindings of a program, held by native code. */
export type NativeBindings = { readonly opaque: "bindings" };

/** What a run reports. */
export interface NativeReport {
  readonly seconds: number;
  /** Seconds inside kernels: the rest is the interpreter's. */
  readonly kernelSeconds: number;
  /** Seconds in which no kernel ran because a collective had not ended. */
  readonly waitSeconds: number;
  /** With `checkFinite`: the step (prepare steps counted first) whose result is not finite, or -1. */
  readonly failedStep: number;
  readonly failedOutput: number;
  /** With `trace`: start and end of every step that ran, in seconds since the start of the run. */
  readonly stepSeconds: Float64Array;
  /** With `trace`: begin and end of every collective on its lane, by ticket, in seconds since the start of the run. */
  readonly collectiveSeconds: Float64Array;
}

/** What a store moved, and whether it goes past the page cache. */
export interface NativeTraffic {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly readSeconds: number;
  readonly writeSeconds: number;
  readonly direct: boolean;
}

/** One rank's end of a process group, held by native code. */
export type NativeGroupHandle = { readonly opaque: "group" };

/** What moves bytes between processes, held by native code. */
export type MpiTransport = { readonly opaque: "transport" };

/** What `build/slipstream.node` exports (native/binding/module.cc). */
export interface Addon {
  /** The highest instruction set of this processor. */
  detectedIsa(): IsaName;
  canRunIsa(isa: string): boolean;
  listKernels(): { readonly name: string; readonly isa: IsaName }[];
  /**
   * Runs one kernel synchronously: for tests and benchmarks of kernels. Returns the instruction set of the
   * kernel that ran.
   */
  runKernel(
    name: string,
    isa: IsaName,
    inputs: readonly NativeTensor[],
    outputs: readonly NativeTensor[],
    attributes: readonly number[],
    threads: number,
  ): IsaName;
  /** A context of its own, or that of the process. */
  createContext(isolated: boolean): NativeContext;
  /** Lets go of a context: its memory is freed with its last program. */
  releaseContext(context: NativeContext): void;
  /**
   * Builds a program from what `encodeProgram` gives.
   * @param groups `ProcessGroup.native` of the program's groups
   */
  createProgram(
    context: NativeContext,
    words: Float64Array,
    kernels: readonly string[],
    isa: IsaName,
    constants: readonly ArrayBufferView[],
    groups: readonly unknown[],
    labels: readonly string[],
  ): NativeProgram;
  /** Reads the memory of all bindings once, for many runs. */
  bindMemory(bindings: readonly ArrayBufferView[]): NativeBindings;
  /** Runs a program on the thread of its context, one at a time. */
  runProgram(
    program: NativeProgram,
    threads: number,
    bindings: readonly ArrayBufferView[] | NativeBindings,
    symbols: Float64Array,
    prepare: boolean,
    checkFinite: boolean,
    trace: boolean,
  ): Promise<NativeReport>;
  /** Frees the memory of a program after the runs that were started before; it cannot run again. */
  releaseProgram(program: NativeProgram): void;
  /** Zeroed memory aligned to pages, outside of JavaScript's heap. */
  allocate(bytes: number): ArrayBuffer;
  /** Puts memory behind every page of a view, on a thread of its own; contents stay as they are. */
  populate(view: ArrayBufferView): Promise<void>;
  /** Creates a file without a name in a folder and gives the number of its store. */
  openStore(
    folder: string,
    bytes: number,
    direct: boolean,
    requestBytes: number,
    queueDepth: number,
    threads: number,
  ): number;
  /** Direction 0 reads into the view, 1 writes from it; offset in bytes. */
  moveStore(store: number, direction: 0 | 1, offset: number, view: ArrayBufferView): Promise<void>;
  storeTraffic(store: number): NativeTraffic;
  /** Waits for the transfers of a program that failed. */
  drainStore(store: number): void;
  closeStore(store: number): void;
  /** Every rank's end of a world in this process; an emulated link an axis. A timeout of 0 waits for ever. */
  createLocalWorld(
    size: number,
    timeoutSeconds: number,
    axes: readonly string[],
    bandwidths: readonly number[],
    latencies: readonly number[],
  ): NativeGroupHandle[];
  /** This process's end of a world over what `openTransport` of the MPI addon gave; once a process. */
  createMessageWorld(transport: MpiTransport, timeoutSeconds: number): NativeGroupHandle;
  groupInformation(group: NativeGroupHandle): {
    readonly name: string;
    readonly rank: number;
    readonly size: number;
    readonly members: readonly number[];
  };
  /** The group of some ranks of a group; a bandwidth of 0 means no emulated link of its own. */
  subgroup(
    group: NativeGroupHandle,
    name: string,
    ranks: readonly number[],
    bandwidth: number,
    latency: number,
  ): NativeGroupHandle;
  /**
   * Queues a collective on the group's lane; `kind` is a code of `collectiveKinds`. Settles when this rank's part is
   * done, `exchange` with every rank's bytes. Operands are kept until then. Rejects with an Error whose code is that
   * of the failure.
   */
  runCollective(
    group: NativeGroupHandle,
    kind: number,
    inputs: readonly NativeTensor[],
    outputs: readonly NativeTensor[],
    dimension: number,
    otherDimension: number,
    peer: number,
    sendCounts: readonly number[],
    receiveCounts: readonly number[],
    label: string,
  ): Promise<Uint8Array[] | undefined>;
  abortGroup(group: NativeGroupHandle, reason: string): void;
  /** Says that no further calls come from this rank, once those under way have ended. */
  leaveGroup(group: NativeGroupHandle): void;
  setGroupMoment(group: NativeGroupHandle, moment: string): void;
  groupTraffic(group: NativeGroupHandle): { readonly bytes: number; readonly seconds: number };
}

let loaded: Addon | undefined;

/** Loads the addon once. @throws RunError saying how to build it where it is missing or broken. */
export function loadAddon(): Addon {
  if (loaded !== undefined) return loaded;
  const path = join(dirname(fileURLToPath(import.meta.url)), "../../../build/slipstream.node");
  if (!existsSync(path)) {
    throw new RunError("addon_missing", "Slipstream's native code has not been built", {
      where: path,
      hint: "run `npx slipstream build` (it needs g++ 12 or clang++ 15, or newer)",
    });
  }
  try {
    loaded = createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw new RunError("addon_broken", "Slipstream's native code does not load", {
      where: path,
      received: cause instanceof Error ? cause.message : String(cause),
      hint: "delete the build folder and run `npx slipstream build`",
      cause,
    });
  }
  return loaded;
}
