import { type DType, dtypeCode, type TensorData } from "../../base/dtype.ts";
import { CommunicationError, InternalError } from "../../base/errors.ts";
import {
  requireOperands,
  requireRank,
  requireReceived,
  requireSent,
  requireSums,
} from "../check_collective.ts";
import type { CollectiveOptions, EmulatedLink, ProcessGroup } from "../group.ts";
import type { Addon, NativeGroupHandle, NativeTensor } from "./addon.ts";

/** The collectives of native groups; positions are the codes of `CollectiveKind` in native/comm/group.h. */
export const collectiveKinds = [
  "barrier",
  "all_reduce",
  "reduce_scatter",
  "all_gather",
  "all_to_all",
  "permute",
  "broadcast",
  "send",
  "receive",
  "all_to_all_variable",
  "exchange",
] as const;
export type CollectiveKind = (typeof collectiveKinds)[number];

const communicationCodes = ["collective_mismatch", "rank_lost", "collective_timeout"];

/**
 * What people are shown of an error that came out of native code: a failure of a group becomes a
 * CommunicationError; anything else stays as it is.
 */
export function asCommunicationError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof CommunicationError) return error;
  const code = (error as { code?: unknown }).code;
  if (typeof code !== "string" || !communicationCodes.includes(code)) return error;
  return new CommunicationError(code, error.message);
}

/** How to call a native collective, beside its operands. */
interface NativeCall {
  readonly peer?: number;
  readonly sendCounts?: readonly number[];
  readonly receiveCounts?: readonly number[];
}

/** One rank's end of a group whose data native code moves: `local` or `mpi`. */
export class NativeGroup implements ProcessGroup {
  readonly name: string;
  readonly rank: number;
  readonly size: number;
  readonly members: readonly number[];
  readonly native: NativeGroupHandle;
  readonly #addon: Addon;
  #closed = false;

  constructor(addon: Addon, handle: NativeGroupHandle) {
    const { name, rank, size, members } = addon.groupInformation(handle);
    this.name = name;
    this.rank = rank;
    this.size = size;
    this.members = members;
    this.native = handle;
    this.#addon = addon;
  }

  async allReduce(tensors: readonly TensorData[], options?: CollectiveOptions): Promise<void> {
    requireSums(tensors);
    await this.#run("all_reduce", tensors, tensors, {}, options);
  }

  async reduceScatter(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void> {
    requireSums(inputs);
    requireOperands(inputs, outputs, 1, this.size);
    await this.#run("reduce_scatter", inputs, outputs, {}, options);
  }

  async allGather(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void> {
    requireOperands(inputs, outputs, this.size, 1);
    await this.#run("all_gather", inputs, outputs, {}, options);
  }

  async allToAll(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void> {
    // Each input divides into parts, and as many come back.
    requireOperands(inputs, outputs, this.size, this.size);
    await this.#run("all_to_all", inputs, outputs, {}, options);
  }

  async allToAllVariable(
    input: TensorData,
    sendCounts: readonly number[],
    output: TensorData,
    receiveCounts: readonly number[],
    options?: CollectiveOptions,
  ): Promise<void> {
    requireSent(input, sendCounts, this.size);
    requireReceived(output, receiveCounts, this.size);
    await this.#run("all_to_all_variable", [input], [output], { sendCounts, receiveCounts }, options);
  }

  async broadcast(tensors: readonly TensorData[], root: number, options?: CollectiveOptions): Promise<void> {
    requireRank(root, this.size);
    await this.#run("broadcast", tensors, tensors, { peer: root }, options);
  }

  async send(tensors: readonly TensorData[], peer: number, options?: CollectiveOptions): Promise<void> {
    requireRank(peer, this.size);
    await this.#run("send", tensors, [], { peer }, options);
  }

  async receive(tensors: readonly TensorData[], peer: number, options?: CollectiveOptions): Promise<void> {
    requireRank(peer, this.size);
    await this.#run("receive", [], tensors, { peer }, options);
  }

  async barrier(): Promise<void> {
    await this.#run("barrier", [], [], {});
  }

  async exchange(bytes: Uint8Array): Promise<Uint8Array[]> {
    const received = await this.#run("exchange", [bytes], [], {});
    if (received === undefined) throw new InternalError("an exchange gave nothing");
    return received;
  }

  async subgroup(name: string, members: readonly number[], link?: EmulatedLink): Promise<ProcessGroup> {
    this.#open();
    for (const member of members) requireRank(member, this.size);
    if (!members.includes(this.rank)) {
      throw new CommunicationError("not_a_member", `rank ${this.rank} is no member of group "${name}"`, {
        received: `ranks ${members.join(", ")}`,
      });
    }
    const handle = this.#addon.subgroup(this.native, name, members, link?.bandwidth ?? 0, link?.latency ?? 0);
    return new NativeGroup(this.#addon, handle);
  }

  abort(reason: string): void {
    this.#addon.abortGroup(this.native, reason);
  }

  setMoment(moment: string): void {
    this.#addon.setGroupMoment(this.native, moment);
  }

  traffic(): { readonly bytes: number; readonly seconds: number } {
    return this.#addon.groupTraffic(this.native);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#addon.leaveGroup(this.native);
  }

  #open(): void {
    if (!this.#closed) return;
    throw new CommunicationError("rank_lost", `rank ${this.rank} closed group "${this.name}" before`);
  }

  async #run(
    kind: CollectiveKind,
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    { peer = 0, sendCounts = [], receiveCounts = [] }: NativeCall,
    options: CollectiveOptions = {},
  ): Promise<Uint8Array[] | undefined> {
    this.#open();
    try {
      return await this.#addon.runCollective(
        this.native,
        collectiveKinds.indexOf(kind),
        inputs.map(nativeTensor),
        outputs.map(nativeTensor),
        0,
        0,
        peer,
        sendCounts,
        receiveCounts,
        options.label ?? "",
      );
    } catch (error) {
      throw asCommunicationError(error);
    }
  }
}

function nativeTensor(data: TensorData): NativeTensor {
  return { data, dtype: dtypeCode(dtypeOf(data)), shape: [data.length] };
}

/** The dtype of plain data; 16 raw bits are taken for bf16. */
function dtypeOf(data: TensorData): DType {
  if (data instanceof Float32Array) return "f32";
  if (data instanceof Float64Array) return "f64";
  if (data instanceof Uint16Array) return "bf16";
  if (data instanceof Int32Array) return "i32";
  return data instanceof Int8Array ? "i8" : "u8";
}
