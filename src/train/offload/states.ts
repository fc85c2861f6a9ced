import { bytesPerElement, type DType, type TensorData } from "../../base/dtype.ts";
import { ConfigError, InternalError } from "../../base/errors.ts";
import type { StoredLeaf, TierOptions } from "../../compiler/plan/tiers.ts";
import type { Backend, CompileOptions } from "../../runtime/backend.ts";
import { alignRegion, type Store } from "../../runtime/store.ts";
import type { Sweep } from "../layout.ts";
import type { OffloadSettings } from "./settings.ts";

/** How many elements each of a rank's flat buffers has; that of states is one optimizer state's. */
export interface StateElements {
  readonly parameters: number;
  readonly gradients: number;
  readonly states: number;
}

/** What programs are compiled with where some of their leaves lie on disk. */
export type Offload = Pick<CompileOptions, "tiers" | "stores">;

/** Large parameters start at multiples of so many elements, so that they move without a copy in f32 and in bf16. */
export const tieredAlignment = 2048;

const storeName = "states";

/**
 * A rank's flat buffers of parameters, gradients and optimizer states, each in memory or in a store on disk (ZeRO-
 * Infinity, arXiv 2104.07857). Programs name stretches of them as leaves: those in memory are bound, those on disk
 * are read and written around the steps that use them.
 */
export class States {
  /** The memory of the leaves that lie in it. */
  readonly bindings: Record<string, TensorData> = {};
  readonly #settings: OffloadSettings | undefined;
  readonly #memory = new Map<string, Float32Array>();
  readonly #offsets = new Map<string, number>();
  readonly #leaves = new Map<string, StoredLeaf>();
  readonly #halves = new Map<string, StoredLeaf>();
  readonly #elements = new Map<string, number>();
  readonly #stateNames: readonly string[];
  readonly #store: Store | undefined;
  readonly #spillOffset: number;

  /**
   * @throws ConfigError where the folder of `settings` is missing or read-only, or the backend has no disk; RunError
   * where the disk is full.
   */
  constructor(
    backend: Backend,
    elements: StateElements,
    stateNames: readonly string[],
    settings?: OffloadSettings,
  ) {
    this.#settings = settings;
    this.#stateNames = stateNames;
    let bytes = 0;
    const reserve = (kind: string, length: number): void => {
      this.#offsets.set(kind, bytes);
      bytes += alignRegion(length);
    };
    const add = (kind: string, count: number, onDisk: boolean | undefined): void => {
      this.#elements.set(kind, count);
      if (onDisk === true) reserve(kind, count * 4);
      else this.#memory.set(kind, backend.allocate("f32", count) as Float32Array);
    };
    add("parameters", elements.parameters, settings?.parameters);
    add("gradients", elements.gradients, settings?.gradients);
    for (const name of stateNames) add(name, elements.states, settings?.optimizer);
    if (this.keepsHalves) reserve("halves", elements.parameters * 2);
    this.#spillOffset = bytes;
    bytes += alignRegion(settings?.spillBytes ?? 0);
    if (settings === undefined || bytes === 0) return;
    if (backend.openStore === undefined) {
      throw new ConfigError("no_store", `the ${backend.name} backend keeps nothing on disk`, {
        where: "zero_optimization",
        hint: "train with the native backend, or without offload to nvme",
      });
    }
    this.#store = backend.openStore(settings.path, bytes, settings.io);
  }

  /** Whether forward and backward read a copy of the parameters in bf16. */
  get keepsHalves(): boolean {
    return this.#settings?.parameters === true && this.#settings.halfParameters === true;
  }

  /** Whether parameters, gradients or optimizer states are on disk; activations alone do not count. */
  get hasBuffersOnDisk(): boolean {
    return this.#offsets.size > 0;
  }

  /** The store, where something is on disk. */
  get store(): Store | undefined {
    return this.#store;
  }

  /** Whether a buffer is on disk. */
  isOnDisk(kind: string): boolean {
    return this.#offsets.has(kind);
  }

  /** Bytes of a buffer wherever it lies. */
  bytesOf(kind: string): number {
    return this.#elements.get(kind)! * 4;
  }

  /** The buffers that are in memory, by kind. */
  get buffers(): ReadonlyMap<string, Float32Array> {
    return this.#memory;
  }

  /** Names a stretch of a buffer as a leaf of programs. */
  place(leaf: string, kind: string, start: number, length: number): void {
    const memory = this.#memory.get(kind);
    if (memory !== undefined) this.bindings[leaf] = memory.subarray(start, start + length);
    else this.#leaves.set(leaf, this.#stored(kind, start, "f32"));
  }

  /** Names what an update of a sweep reads and writes as leaves: each its kind and the sweep's name. */
  placeSweep({ name, parameterStart, gradientStart, statesStart, length }: Sweep): void {
    this.place(`parameters ${name}`, "parameters", parameterStart, length);
    if (this.keepsHalves) this.placeHalf(`copy ${name}`, parameterStart);
    this.place(`gradients ${name}`, "gradients", gradientStart, length);
    for (const state of this.#stateNames) this.place(`${state} ${name}`, state, statesStart, length);
  }

  /** Lets programs that compute read a parameter's leaf from its bf16 copy. */
  computeInHalf(leaf: string, start: number): void {
    this.#halves.set(leaf, this.#stored("halves", start, "bf16"));
  }

  /** Names the bf16 copy of a stretch of the parameters as a leaf. */
  placeHalf(leaf: string, start: number): void {
    this.#leaves.set(leaf, this.#stored("halves", start, "bf16"));
  }

  /** What programs that work on states are compiled with. */
  get offload(): Offload {
    const { window = 0, updateWindow = { read: window, write: window } } = this.#settings ?? {};
    return this.#offload(this.#leaves, { window: updateWindow.read, writeWindow: updateWindow.write });
  }

  /** What programs that compute with parameters are compiled with: they may read them in bf16. */
  get computeOffload(): Offload {
    const { window = 0, spillsAlways = false } = this.#settings ?? {};
    return this.#offload(new Map([...this.#leaves, ...this.#halves]), { window }, spillsAlways);
  }

  /**
   * A stretch of a buffer in memory, as a view.
   * @throws InternalError where the buffer is on disk.
   */
  view(kind: string, start: number, length: number): Float32Array {
    const memory = this.#memory.get(kind);
    if (memory === undefined) throw new InternalError(`${kind} are on disk: there is no view of them`);
    return memory.subarray(start, start + length);
  }

  /** The values of a stretch: a view where it is in memory, a copy otherwise. */
  async values(kind: string, start: number, length: number): Promise<Float32Array> {
    if (!this.isOnDisk(kind)) return this.view(kind, start, length);
    const copy = new Float32Array(length);
    await this.read(kind, start, copy);
    return copy;
  }

  /** Copies elements from `start` on into memory. */
  async read(kind: string, start: number, into: Float32Array): Promise<void> {
    if (this.isOnDisk(kind)) await this.#store!.read(this.#offsets.get(kind)! + start * 4, into);
    else into.set(this.view(kind, start, into.length));
  }

  /** Copies memory over elements from `start` on. */
  async write(kind: string, start: number, from: Float32Array): Promise<void> {
    if (this.isOnDisk(kind)) await this.#store!.write(this.#offsets.get(kind)! + start * 4, from);
    else this.#memory.get(kind)!.set(from, start);
  }

  /** Gives disk space back; states on disk are gone. */
  close(): void {
    this.#store?.close();
  }

  #stored(kind: string, start: number, dtype: DType): StoredLeaf {
    const offset = this.#offsets.get(kind)! + start * bytesPerElement(dtype);
    return dtype === "f32" ? { store: storeName, offset } : { store: storeName, offset, dtype };
  }

  #offload(
    leaves: ReadonlyMap<string, StoredLeaf>,
    windows: Pick<TierOptions, "window" | "writeWindow">,
    always = false,
  ): Offload {
    const store = this.#store;
    const settings = this.#settings;
    if (store === undefined || settings === undefined) return {};
    const { arenaLimit, spillBytes } = settings;
    return {
      tiers: {
        leaves,
        ...windows,
        ...(arenaLimit === undefined ? {} : { limit: arenaLimit }),
        ...(spillBytes === undefined
          ? {}
          : { spill: { store: storeName, offset: this.#spillOffset, bytes: spillBytes, always } }),
      },
      stores: new Map([[storeName, store]]),
    };
  }
}
