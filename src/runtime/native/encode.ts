import { dtypeCode } from "../../base/dtype.ts";
import type { Program, StartStep, Storage } from "../../compiler/plan/program.ts";
import { collectiveKinds } from "./group.ts";
import { lowerStep } from "./lowering.ts";

/** The version of the layout; `kProgramVersion` in native/executor/program.h. */
export const version = 2;

export const storageCodes: Record<Storage["kind"], number> = {
  arena: 0,
  prepared: 1,
  binding: 2,
  constant: 3,
};

/** What a step does; positions are `StepKind` of native/executor/program.h. Stores are kernels. */
export const stepKinds = ["kernel", "start", "wait"] as const;

function place(storage: Storage): number {
  switch (storage.kind) {
    case "arena":
    case "prepared":
      return storage.offset;
    case "binding":
      return storage.binding;
    case "constant":
      return storage.constant;
  }
}

/** A program as native code reads it. */
export interface EncodedProgram {
  /** Laid out as described in native/executor/program.h. */
  readonly words: Float64Array;
  readonly kernels: readonly string[];
  /** What errors call the operands of collectives. */
  readonly labels: readonly string[];
}

/**
 * Writes a program for native code.
 * @param stores the numbers of the stores that it names.
 */
export function encodeProgram(
  program: Program,
  stores: ReadonlyMap<string, number> = new Map(),
): EncodedProgram {
  const kernels = new Names();
  const labels = new Names();
  const symbolIndex = new Map(program.symbols.map((symbol, index) => [symbol.name, index]));
  const words: number[] = [
    version,
    program.symbols.length,
    program.tensors.length,
    program.bindings.length,
    program.constants.length,
    program.groups.length,
    program.steps.filter(({ kind }) => kind === "start").length,
    program.prepare.length,
    program.steps.length,
    program.arenaBytes,
    program.preparedBytes,
    ...program.symbols.map((symbol) => symbol.bound),
  ];
  for (const { shape, dtype, storage } of program.tensors) {
    words.push(dtypeCode(dtype), storageCodes[storage.kind], place(storage), shape.length);
    for (const dimension of shape) {
      if (typeof dimension === "number") words.push(dimension, -1);
      else words.push(dimension.scale, symbolIndex.get(dimension.symbol)!);
    }
  }
  for (const step of [...program.prepare, ...program.steps]) {
    if (step.kind === "wait") {
      words.push(stepKinds.indexOf("wait"), step.ticket);
    } else if (step.kind === "start") {
      words.push(stepKinds.indexOf("start"), step.group, collectiveKinds.indexOf(step.op), step.ticket);
      words.push(step.inputs.length, ...step.inputs, step.outputs.length, ...step.outputs);
      words.push(...collectiveAttributes(step), labels.indexOf(step.scope));
    } else {
      const call = lowerStep(step, program.tensors, stores);
      words.push(stepKinds.indexOf("kernel"), kernels.indexOf(call.kernel));
      words.push(call.inputs.length, ...call.inputs, call.outputs.length, ...call.outputs);
      words.push(call.attributes.length, ...call.attributes);
    }
  }
  return { words: Float64Array.from(words), kernels: kernels.list, labels: labels.list };
}

/** The dimension, the other dimension and the peer of `CollectiveCall` in native/comm/group.h. */
function collectiveAttributes({ op, attributes }: StartStep): [number, number, number] {
  const { dimension = 0, split = 0, concatenate = 0, offset = 0 } = attributes as CollectiveAttributes;
  return op === "all_to_all" ? [split, concatenate, 0] : [dimension, 0, offset];
}

/** What the attributes of any collective hold beside its group. */
interface CollectiveAttributes {
  readonly dimension?: number;
  readonly split?: number;
  readonly concatenate?: number;
  readonly offset?: number;
}

/** Names by number, each once. */
class Names {
  readonly list: string[] = [];
  readonly #indices = new Map<string, number>();

  indexOf(name: string): number {
    const known = this.#indices.get(name);
    if (known !== undefined) return known;
    const index = this.list.push(name) - 1;
    this.#indices.set(name, index);
    return index;
  }
}
