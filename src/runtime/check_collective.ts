import type { TensorData } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";

/**
 * What every process group asks of the operands of a collective. Each throws a ShapeError before anything is sent, so
 * that a wrong call of all ranks ends all of them at once.
 */

/** Outputs that pair up with inputs and hold `inputs x gain / cut` elements of the same type. */
export function requireOperands(
  inputs: readonly TensorData[],
  outputs: readonly TensorData[],
  gain: number,
  cut: number,
): void {
  if (inputs.length !== outputs.length) {
    throw new ShapeError("operands", "a collective writes one output for each input", {
      expected: `${inputs.length} outputs`,
      received: `${outputs.length}`,
    });
  }
  inputs.forEach((input, index) => {
    const output = outputs[index]!;
    if (input.length % cut !== 0) {
      throw new ShapeError("operands", `tensor ${index} does not divide into ${cut} equal parts`, {
        received: `${input.length} elements`,
      });
    }
    const expected = (input.length * gain) / cut;
    if (output.length !== expected || output.constructor !== input.constructor) {
      throw new ShapeError("operands", `the output of tensor ${index} does not fit`, {
        expected: `${input.constructor.name} of ${expected} elements`,
        received: `${output.constructor.name} of ${output.length}`,
      });
    }
  });
}

/** Data that have a sum: f32, bf16, f64 or i32. */
export function requireSums(tensors: readonly TensorData[]): void {
  tensors.forEach((tensor, index) => {
    if (tensor instanceof Uint8Array || tensor instanceof Int8Array) {
      throw new ShapeError("operands", `tensor ${index} cannot be summed over ranks`, {
        expected: "f32, bf16, f64 or i32",
        received: tensor.constructor.name,
      });
    }
  });
}

/** A rank of a group of `size`. */
export function requireRank(rank: number, size: number): void {
  if (Number.isInteger(rank) && rank >= 0 && rank < size) return;
  throw new ShapeError("operands", "no such rank in the group", {
    expected: size === 1 ? "0" : `0 to ${size - 1}`,
    received: `${rank}`,
  });
}

/** A count for each rank, together no more than `input` has. */
export function requireSent(input: TensorData, counts: readonly number[], size: number): void {
  requireCounts(input, counts, size, "sent");
}

/** A count for each rank, together no more than `output` can hold. */
export function requireReceived(output: TensorData, counts: readonly number[], size: number): void {
  requireCounts(output, counts, size, "received");
}

function requireCounts(data: TensorData, counts: readonly number[], size: number, verb: string): void {
  if (counts.length !== size || counts.some((count) => !Number.isInteger(count) || count < 0)) {
    throw new ShapeError("operands", `what is ${verb} needs a count for each rank`, {
      expected: `${size} counts of 0 or more`,
      received: `[${counts.join(", ")}]`,
    });
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= data.length) return;
  throw new ShapeError("operands", `more elements are ${verb} than the memory holds`, {
    expected: `at most ${data.length}`,
    received: `${total}`,
  });
}
