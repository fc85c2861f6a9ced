import type { TensorData } from "../../base/dtype.ts";
import type { ProcessGroup } from "../../runtime/group.ts";

/** Which way a message goes: activations to later stages, or gradients back. */
export type Direction = "forward" | "backward";

/**
 * The links of one rank of a pipeline. Calls of one group run one after another, so each direction between two ranks
 * is a group of its own: a receive that waits holds up nothing else.
 */
export class PipelineChannels {
  readonly #pipeline: ProcessGroup;
  readonly #links: ReadonlyMap<string, ProcessGroup>;
  readonly #sharing: ReadonlyMap<string, ProcessGroup>;

  private constructor(
    pipeline: ProcessGroup,
    links: ReadonlyMap<string, ProcessGroup>,
    sharing: ReadonlyMap<string, ProcessGroup>,
  ) {
    this.#pipeline = pipeline;
    this.#links = links;
    this.#sharing = sharing;
  }

  /**
   * Opens the links. A collective: every rank of the pipeline calls it with the same arguments.
   * @param shared sets of ranks that hold a parameter together, each ascending.
   */
  static async open(
    pipeline: ProcessGroup,
    shared: readonly (readonly number[])[] = [],
  ): Promise<PipelineChannels> {
    const { size, rank } = pipeline;
    const links = new Map<string, ProcessGroup>();
    // The name begins with the axis, whose emulated link they take.
    for (const direction of ["forward", "backward"] as const) {
      for (let from = 0; from < size; from++) {
        const to = (from + (direction === "forward" ? 1 : size - 1)) % size;
        if ((from !== rank && to !== rank) || from === to) continue;
        const name = linkName(direction, from, to);
        links.set(
          name,
          await pipeline.subgroup(
            `pipeline ${name}`,
            [from, to].sort((a, b) => a - b),
          ),
        );
      }
    }
    const sharing = new Map<string, ProcessGroup>();
    for (const members of shared) {
      if (!members.includes(rank) || sharing.has(members.join())) continue;
      sharing.set(members.join(), await pipeline.subgroup(`${pipeline.name}+shared`, members));
    }
    return new PipelineChannels(pipeline, links, sharing);
  }

  /** This rank's place in the pipeline, and how many there are. */
  get rank(): number {
    return this.#pipeline.rank;
  }

  get ranks(): number {
    return this.#pipeline.size;
  }

  /** Sends to the next rank, or to the one before; the data are taken at once. */
  send(direction: Direction, tensors: readonly TensorData[], label: string): Promise<void> {
    const to = this.#neighbour(direction === "forward" ? 1 : -1);
    const link = this.#links.get(linkName(direction, this.rank, to))!;
    return link.send(tensors, peerIn(link), { label });
  }

  /** Receives what the rank before, or the next one on the way back, sent. */
  receive(direction: Direction, tensors: readonly TensorData[], label: string): Promise<void> {
    const from = this.#neighbour(direction === "forward" ? -1 : 1);
    const link = this.#links.get(linkName(direction, from, this.rank))!;
    return link.receive(tensors, peerIn(link), { label });
  }

  /** Adds up tensors over the ranks that share a parameter, in place. */
  async sum(members: readonly number[], tensors: readonly TensorData[], label: string): Promise<void> {
    await this.#sharing.get(members.join())!.allReduce(tensors, { label });
  }

  /** Frees the links. */
  close(): void {
    for (const group of [...this.#links.values(), ...this.#sharing.values()]) group.close();
  }

  #neighbour(offset: number): number {
    return (this.rank + offset + this.ranks) % this.ranks;
  }
}

function linkName(direction: Direction, from: number, to: number): string {
  return `${direction} ${from}>${to}`;
}

/** The other rank of a group of two. */
function peerIn(link: ProcessGroup): number {
  return 1 - link.rank;
}
