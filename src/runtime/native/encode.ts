import { dtypeCode } from "../../base/dtype.ts";
import type { Program, Storage } from "../../compiler/plan/program.ts";
import { lowerStep } from "./lowering.ts";

/** The version of the layout; `kProgramVersion` in native/executor/program.h. */
export const version = 1;

export const storageCodes: Record<Storage["kind"], number> = {
  arena: 0,
  prepared: 1,
  binding: 2,
  constant: 3,
};

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

/**
 * A program as native code reads it: the layout is described in native/executor/program.h.
 * @param stores the numbers of the stores that it names.
 */
export function encodeProgram(
  program: Program,
  stores: ReadonlyMap<string, number> = new Map(),
): { words: Float64Array; kernels: string[] } {
  const kernels: string[] = [];
  const kernelIndex = new Map<string, number>();
  const symbolIndex = new Map(program.symbols.map((symbol, index) => [symbol.name, index]));
  const words: number[] = [
    version,
    program.symbols.length,
    program.tensors.length,
    program.bindings.length,
    program.constants.length,
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
    const call = lowerStep(step, program.tensors, stores);
    let kernel = kernelIndex.get(call.kernel);
    if (kernel === undefined) {
      kernel = kernels.push(call.kernel) - 1;
      kernelIndex.set(call.kernel, kernel);
    }
    words.push(kernel, call.inputs.length, ...call.inputs, call.outputs.length, ...call.outputs);
    words.push(call.attributes.length, ...call.attributes);
  }
  return { words: Float64Array.from(words), kernels };
}
