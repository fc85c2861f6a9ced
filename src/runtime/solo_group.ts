import type { TensorData } from "../base/dtype.ts";
import { CommunicationError } from "../base/errors.ts";
import {
  requireOperands,
  requireRank,
  requireReceived,
  requireSent,
  requireSums,
} from "./check_collective.ts";
import type { EmulatedLink, ProcessGroup } from "./group.ts";

/** The group of a rank that is alone: every collective is a copy, or nothing. */
export function soloGroup(name = "world"): ProcessGroup {
  return new SoloGroup(name, 0);
}

class SoloGroup implements ProcessGroup {
  readonly name: string;
  readonly rank = 0;
  readonly size = 1;
  readonly members: readonly number[];
  readonly native = undefined;
  readonly #sent: TensorData[][] = [];
  #failure: CommunicationError | undefined;

  constructor(name: string, member: number) {
    this.name = name;
    this.members = [member];
  }

  async allReduce(tensors: readonly TensorData[]): Promise<void> {
    this.#live();
    requireSums(tensors);
  }

  async reduceScatter(inputs: readonly TensorData[], outputs: readonly TensorData[]): Promise<void> {
    requireSums(inputs);
    await this.allToAll(inputs, outputs);
  }

  async allGather(inputs: readonly TensorData[], outputs: readonly TensorData[]): Promise<void> {
    await this.allToAll(inputs, outputs);
  }

  async allToAll(inputs: readonly TensorData[], outputs: readonly TensorData[]): Promise<void> {
    this.#live();
    requireOperands(inputs, outputs, 1, 1);
    inputs.forEach((input, index) => {
      outputs[index]!.set(input);
    });
  }

  async allToAllVariable(
    input: TensorData,
    sendCounts: readonly number[],
    output: TensorData,
    receiveCounts: readonly number[],
  ): Promise<void> {
    this.#live();
    requireSent(input, sendCounts, 1);
    requireReceived(output, receiveCounts, 1);
    output.set(input.subarray(0, sendCounts[0]));
  }

  async broadcast(_tensors: readonly TensorData[], root: number): Promise<void> {
    this.#live();
    requireRank(root, 1);
  }

  async send(tensors: readonly TensorData[], peer: number): Promise<void> {
    this.#live();
    requireRank(peer, 1);
    this.#sent.push(tensors.map((tensor) => tensor.slice()));
  }

  async receive(tensors: readonly TensorData[], peer: number): Promise<void> {
    this.#live();
    requireRank(peer, 1);
    const message = this.#sent.shift();
    if (message === undefined) {
      throw new CommunicationError("collective_timeout", "the only rank receives what it has not sent");
    }
    requireOperands(message, tensors, 1, 1);
    message.forEach((data, index) => {
      tensors[index]!.set(data);
    });
  }

  async barrier(): Promise<void> {
    this.#live();
  }

  async exchange(bytes: Uint8Array): Promise<Uint8Array[]> {
    this.#live();
    return [bytes.slice()];
  }

  async subgroup(name: string, members: readonly number[], _link?: EmulatedLink): Promise<ProcessGroup> {
    this.#live();
    if (members.length !== 1) throw new CommunicationError("not_a_member", `group "${name}" has one rank`);
    requireRank(members[0]!, 1);
    return new SoloGroup(name, this.members[0]!);
  }

  abort(reason: string): void {
    this.#failure ??= new CommunicationError("rank_lost", `rank ${this.members[0]} gave up: ${reason}`);
  }

  setMoment(): void {}

  traffic(): { readonly bytes: number; readonly seconds: number } {
    return { bytes: 0, seconds: 0 };
  }

  close(): void {
    this.#failure ??= new CommunicationError("rank_lost", `group "${this.name}" was closed`);
  }

  #live(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
