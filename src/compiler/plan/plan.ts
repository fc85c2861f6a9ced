import type { TensorData } from "../../base/dtype.ts";
import { InternalError, ShapeError } from "../../base/errors.ts";
import { formatShape } from "../../base/shape.ts";
import { type Graph, type TensorType, typeOf, type Value } from "../../graph/graph.ts";
import { type CollectiveOp, inPlaceOutputs, type RankGroup } from "../../graph/ops.ts";
import { align, type Lifetime, layOutArena } from "./arena.ts";
import { type CollectiveNode, type Draft, draftSteps } from "./draft.ts";
import { parameterWork } from "./parameter_work.ts";
import type {
  Binding,
  KernelStep,
  Program,
  ProgramTensor,
  Step,
  Storage,
  StoreStep,
  TransferStep,
} from "./program.ts";
import { copyOverwrittenLeaves, routeOutputs } from "./routes.ts";
import { bytesOf, canOverwrite, keyOf, rootOf } from "./storage.ts";
import { layOutTiers, type TieredLayout, type TierOptions } from "./tiers.ts";
import type { Touch, TransferAction } from "./transfers.ts";

/**
 * Places every value of a graph in memory and lists its steps. Values whose lives do not meet share memory,
 * reshapes share that of their operand, and a `map` may write over an operand that dies with it. Outputs are
 * written where they belong by the kernel that makes them wherever nothing is read there afterwards. Collectives keep
 * their memory from their start to their wait. What lies in a store is in the arena around the steps that use it.
 * @throws ConfigError where the arena cannot be kept within the limit of `tiers`.
 */
export function planProgram(recorded: Graph, tiers?: TierOptions): Program {
  const graph = copyOverwrittenLeaves(recorded);
  refuseWritesToConstants(graph);
  const prepared = parameterWork(graph);
  const routes = routeOutputs(graph, prepared);
  const moved = new MovedLeaves(graph, tiers);
  const bindings = listBindings(graph).filter(({ name }) => moved.objectOf(name) === undefined);
  const bindingIndex = new Map(bindings.map((binding, index) => [binding.name, index]));
  const steps = draftSteps(graph.nodes, (node) => !prepared.has(node), routes);
  const prepareSteps = draftSteps(graph.nodes, (node) => prepared.has(node), []);
  const constants: TensorData[] = [];
  const storages = new Map<string, Place>();
  const placeOf = (name: string): Place => {
    const object = moved.objectOf(name);
    return object === undefined
      ? { kind: "binding", binding: bindingIndex.get(name)! }
      : { kind: "moved", object };
  };

  for (const node of graph.nodes) {
    const key = keyOf({ node, index: 0 });
    if (node.op === "leaf") storages.set(key, placeOf(node.attributes.name));
    if (node.op === "constant")
      storages.set(key, { kind: "constant", constant: constants.push(node.attributes.data) - 1 });
  }
  for (const route of routes) {
    if (route.kind !== "direct" && route.kind !== "accumulate") continue;
    const { output } = route;
    const name = output.target === undefined ? output.name : output.target.node.attributes.name;
    storages.set(keyOf(rootOf(output.value)), placeOf(name));
  }
  let preparedBytes = 0;
  for (const draft of prepareSteps) {
    for (const value of draft.writes) {
      const key = keyOf(rootOf(value));
      if (storages.has(key)) continue;
      storages.set(key, { kind: "prepared", offset: preparedBytes });
      preparedBytes += align(bytesOf(value));
    }
  }
  const blocks = findBlocks(steps, storages);
  const tensors = new TensorTable(storages);
  const groups = new GroupTable();
  const finishing: Finishing = { tensors, groups, placeOf };
  const finish = (draft: Draft, position?: number): Step => finishStep(draft, finishing, position);
  let arenaBytes: number;
  let finished: Step[];
  const mayMove = moved.count > 0 || tiers?.spill?.always === true;
  if (tiers === undefined || (!mayMove && tiers.limit === undefined)) {
    arenaBytes = placeBlocks(blocks, storages);
    finished = steps.map((draft) => finish(draft));
  } else {
    const { layout, transferOf } = placeTiers(graph.name, { steps, blocks, storages, moved, tiers, tensors });
    arenaBytes = layout.bytes;
    finished = layout.plan.sequence.map((entry) =>
      typeof entry === "number" ? finish(steps[entry]!, entry) : transferOf(entry),
    );
  }
  return {
    name: graph.name,
    groups: groups.list,
    symbols: listSymbols(graph),
    prepare: prepareSteps.map((draft) => finish(draft)),
    steps: finished,
    tensors: tensors.list,
    bindings,
    constants,
    arenaBytes,
    preparedBytes,
  };
}

function listBindings(graph: Graph): Binding[] {
  const bindings: Binding[] = [];
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    const { name, kind, shape, dtype } = node.attributes;
    bindings.push({ name, role: kind, shape, dtype });
  }
  for (const output of graph.outputs) {
    if (output.target !== undefined) continue;
    bindings.push({ name: output.name, role: "output", ...typeOf(output.value) });
  }
  return bindings;
}

function listSymbols(graph: Graph): { name: string; bound: number }[] {
  const symbols = new Map<string, number>();
  for (const node of graph.nodes) {
    for (const { shape } of node.outputs) {
      for (const dimension of shape) {
        if (typeof dimension === "number") continue;
        const known = symbols.get(dimension.symbol);
        if (known !== undefined && known !== dimension.bound) {
          throw new ShapeError(
            "symbol_conflict",
            `symbol "${dimension.symbol}" has two bounds in one program`,
            {
              received: `${known} and ${dimension.bound}, in ${formatShape(shape)}`,
            },
          );
        }
        symbols.set(dimension.symbol, dimension.bound);
      }
    }
  }
  return [...symbols].map(([name, bound]) => ({ name, bound }));
}

/** An op that works in place on a constant would change the program itself. */
function refuseWritesToConstants(graph: Graph): void {
  for (const node of graph.nodes) {
    for (const [, input] of inPlaceOutputs[node.op] ?? []) {
      if (rootOf(node.inputs[input]!).node.op !== "constant") continue;
      throw new InternalError(`${node.op} updates a constant in place`, { where: node.scope.name });
    }
  }
}

/** The blocks of the arena, and which values they hold. */
interface ArenaBlocks {
  /** By the keys of values. */
  readonly blockOf: ReadonlyMap<string, number>;
  readonly blocks: readonly Lifetime[];
}

/** Finds the lives of values without a place yet. */
function findBlocks(steps: readonly Draft[], storages: ReadonlyMap<string, Place>): ArenaBlocks {
  const blockOf = new Map<string, number>();
  const blocks: { bytes: number; first: number; last: number }[] = [];
  const waits = waitsOf(steps);
  /** The steps that touch a memory, ascending. */
  const uses = new Map<string, number[]>();
  steps.forEach((draft, index) => {
    for (const value of [...draft.reads, ...draft.writes]) {
      const key = keyOf(rootOf(value));
      const present = uses.get(key);
      if (present === undefined) uses.set(key, [index]);
      else present.push(index);
    }
  });
  steps.forEach((draft, index) => {
    const end = draft.kind === "start" ? waits.get(draft.ticket!)! : index;
    for (const value of draft.writes) {
      const root = rootOf(value);
      const key = keyOf(root);
      if (storages.has(key) || blockOf.has(key)) continue;
      const last = uses.get(key)!.at(-1)!;
      const overwritten = draft.reads.find((operand) => {
        const operandKey = keyOf(rootOf(operand));
        return (
          draft.node !== undefined &&
          canOverwrite(draft.node, operand, value.index) &&
          blockOf.has(operandKey) &&
          uses.get(operandKey)!.every((use) => use <= index || use === end) &&
          blocks[blockOf.get(operandKey)!]!.last === end
        );
      });
      if (overwritten !== undefined) {
        const block = blockOf.get(keyOf(rootOf(overwritten)))!;
        blocks[block]!.last = last;
        blockOf.set(key, block);
      } else {
        blockOf.set(key, blocks.push({ bytes: bytesOf(root), first: index, last }) - 1);
      }
    }
  });
  return { blockOf, blocks };
}

/** The positions of waits, by ticket. */
function waitsOf(steps: readonly Draft[]): Map<number, number> {
  const waits = new Map<number, number>();
  steps.forEach(({ kind, ticket }, index) => {
    if (kind === "wait") waits.set(ticket!, index);
  });
  return waits;
}

/** Lays blocks out and records where their values are. */
function placeBlocks({ blockOf, blocks }: ArenaBlocks, storages: Map<string, Place>): number {
  const layout = layOutArena(blocks);
  for (const [key, block] of blockOf) storages.set(key, { kind: "arena", offset: layout.offsets[block]! });
  return layout.bytes;
}

/** The leaves of a graph that lie in stores: those of the same bytes are one object. */
class MovedLeaves {
  readonly regions: { readonly store: string; readonly offset: number; bytes: number; label: TensorType }[] =
    [];
  readonly #objects = new Map<string, number>();

  constructor(graph: Graph, tiers: TierOptions | undefined) {
    const byPlace = new Map<string, number>();
    for (const node of graph.nodes) {
      const place = node.op === "leaf" ? tiers?.leaves.get(node.attributes.name) : undefined;
      if (node.op !== "leaf" || place === undefined) continue;
      const { store, offset } = place;
      const bytes = bytesOf({ node, index: 0 });
      const key = `${store} ${offset} ${bytes}`;
      const object = byPlace.get(key) ?? this.regions.length;
      byPlace.set(key, object);
      this.regions[object] ??= { store, offset, bytes, label: node.outputs[0]! };
      this.#objects.set(node.attributes.name, object);
    }
  }

  get count(): number {
    return this.regions.length;
  }

  /** The object of a leaf; undefined for one in memory. */
  objectOf(name: string): number | undefined {
    return this.#objects.get(name);
  }
}

/** What `placeTiers` works on. */
interface TieredDrafts {
  readonly steps: readonly Draft[];
  readonly blocks: ArenaBlocks;
  readonly storages: Map<string, Place>;
  readonly moved: MovedLeaves;
  readonly tiers: TierOptions;
  readonly tensors: TensorTable;
}

/** Finds what touches each object and block, decides on transfers, and records where everything is. */
function placeTiers(
  name: string,
  { steps, blocks, storages, moved, tiers, tensors }: TieredDrafts,
): { layout: TieredLayout; transferOf: (action: TransferAction) => TransferStep } {
  const objectTouches = moved.regions.map((): Touch[] => []);
  const blockTouches = blocks.blocks.map((): Touch[] => []);
  const underWay = new Map<number, Draft>();
  steps.forEach((draft, step) => {
    const touch = (value: Value, reads: boolean, writes: boolean): void => {
      const key = keyOf(rootOf(value));
      const place = storages.get(key);
      const block = blocks.blockOf.get(key);
      const touches =
        place?.kind === "moved"
          ? objectTouches[place.object]!
          : block === undefined
            ? []
            : blockTouches[block]!;
      const last = touches.at(-1);
      if (last?.step === step)
        touches.push({ step, reads: touches.pop()!.reads || reads, writes: last.writes || writes });
      else touches.push({ step, reads, writes });
    };
    // What is sent and received stays where it is from the start to the wait.
    for (const { reads, writes } of underWay.values())
      for (const value of [...reads, ...writes]) touch(value, true, false);
    for (const value of draft.reads) touch(value, true, false);
    for (const value of draft.writes) touch(value, draft.accumulate, true);
    if (draft.kind === "start") underWay.set(draft.ticket!, draft);
    if (draft.kind === "wait") underWay.delete(draft.ticket!);
    if (draft.store?.target !== undefined) touch(draft.store.target, draft.accumulate, true);
  });
  const layout = layOutTiers(
    name,
    moved.regions.map((region, index) => ({ ...region, touches: objectTouches[index]!, persists: true })),
    blocks.blocks.map(({ bytes }, index) => ({ bytes, touches: blockTouches[index]! })),
    steps.length,
    tiers,
  );
  for (const [key, block] of blocks.blockOf) {
    const object = layout.spilled.get(block);
    const offset = layout.blockOffsets[block]!;
    storages.set(key, object === undefined ? { kind: "arena", offset } : { kind: "moved", object });
  }
  const staysOf = layout.objects.map((): { from: number; to: number; offset: number }[] => []);
  layout.plan.stays.forEach(({ object, from, to }, index) => {
    staysOf[object]!.push({ from, to, offset: layout.stayOffsets[index]! });
  });
  tensors.locate = (object, step) => {
    const stay = staysOf[object]!.find(({ from, to }) => from <= step && step <= to);
    if (stay === undefined) throw new InternalError(`step ${step} of ${name} reads what is not in memory`);
    return { kind: "arena", offset: stay.offset };
  };
  const transferOf = ({ action, stay, number }: TransferAction): TransferStep => {
    const { store, offset } = layout.objects[stay.object]!;
    const type = moved.regions[stay.object]?.label ?? spilledType(blocks, layout, stay.object, steps);
    const tensor = tensors.add({ ...type, storage: { kind: "arena", offset: layout.stayOffsets[number]! } });
    return { kind: "transfer", action, store, offset, tensor, number, scope: "" };
  };
  return { layout, transferOf };
}

/** The type of the largest value of a spilled block. */
function spilledType(
  { blockOf }: ArenaBlocks,
  layout: TieredLayout,
  object: number,
  steps: readonly Draft[],
): TensorType {
  let largest: Value | undefined;
  for (const { writes } of steps) {
    for (const value of writes) {
      const block = blockOf.get(keyOf(rootOf(value)));
      if (block === undefined || layout.spilled.get(block) !== object) continue;
      if (largest === undefined || bytesOf(value) > bytesOf(largest)) largest = value;
    }
  }
  if (largest === undefined) throw new InternalError("nothing writes what is spilled");
  return typeOf(largest);
}

/** Where a value is: in one place, or wherever an object is at the moment. */
type Place = Storage | { readonly kind: "moved"; readonly object: number };

/** The tensors of a program: one for each (place, shape, dtype). */
class TensorTable {
  readonly list: ProgramTensor[] = [];
  /** Where an object is at a step. */
  locate: ((object: number, step: number) => Storage) | undefined;
  readonly #storages: ReadonlyMap<string, Place>;
  readonly #indices = new Map<string, number>();

  constructor(storages: ReadonlyMap<string, Place>) {
    this.#storages = storages;
  }

  add({ storage, shape, dtype }: TensorType & { readonly storage: Place }, step?: number): number {
    const tensor: ProgramTensor = {
      shape,
      dtype,
      storage: storage.kind === "moved" ? this.locate!(storage.object, step!) : storage,
    };
    const key = JSON.stringify(tensor);
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    const index = this.list.push(tensor) - 1;
    this.#indices.set(key, index);
    return index;
  }

  of(value: Value, step?: number): number {
    return this.add({ ...typeOf(value), storage: this.#storages.get(keyOf(rootOf(value)))! }, step);
  }
}

/** What drafts are finished with. */
interface Finishing {
  readonly tensors: TensorTable;
  readonly groups: GroupTable;
  readonly placeOf: (name: string) => Place;
}

function finishStep(draft: Draft, { tensors, groups, placeOf }: Finishing, position?: number): Step {
  const { kind, node, accumulate } = draft;
  if (node === undefined) {
    const { value, target, name } = draft.store!;
    const input = tensors.of(draft.reads[0]!, position);
    const storage = placeOf(target === undefined ? name : target.node.attributes.name);
    const output = tensors.add({ ...typeOf(target ?? value), storage }, position);
    const step: StoreStep = { kind: "store", input, output, accumulate, scope: value.node.scope.name };
    return step;
  }
  const scope = node.scope.name;
  const ticket = draft.ticket!;
  if (kind === "wait") return { kind, op: node.op as CollectiveOp, ticket, scope };
  const inputs = draft.reads.map((value) => tensors.of(value, position));
  const outputs = draft.writes.map((value) => tensors.of(value, position));
  if (kind === "start") {
    const { op, attributes } = node as CollectiveNode;
    return { kind, op, attributes, inputs, outputs, group: groups.indexOf(attributes.group), ticket, scope };
  }
  const { op, attributes } = node;
  const step: KernelStep = { kind: "kernel", op, attributes, inputs, outputs, accumulate, scope };
  return step;
}

/** The groups of a program, one for each name. */
class GroupTable {
  readonly list: RankGroup[] = [];

  /** @throws InternalError where the rank has two places in a group. */
  indexOf(group: RankGroup): number {
    const index = this.list.findIndex(({ axes }) => axes === group.axes);
    if (index < 0) return this.list.push(group) - 1;
    const known = this.list[index]!;
    if (known.size !== group.size || known.rank !== group.rank) {
      throw new InternalError(`a program has two groups over "${group.axes}"`, {
        received: `rank ${known.rank} of ${known.size} and rank ${group.rank} of ${group.size}`,
      });
    }
    return index;
  }
}
