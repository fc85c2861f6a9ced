import { bytesPerElement, type DType, isFloat, type TensorData, viewOf } from "../../base/dtype.ts";
import { FileFormatError, InternalError } from "../../base/errors.ts";
import type { StatePiece } from "../../base/pieces.ts";
import { elementCount, formatShape, sameShape } from "../../base/shape.ts";
import { convertInto } from "../convert.ts";
import { wholeBox } from "../runs.ts";
import { openSafetensors, type TensorInfo, type TensorReader, throwMissing } from "../safetensors_reader.ts";
import { readLayout, type UniversalState, universalStates } from "./layout.ts";

/** A tensor in a file of its own. */
interface StoredState {
  readonly path: string;
  /** Its name within the file, whatever that is. */
  readonly tensor: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

type StoredParameter = Partial<Record<UniversalState, StoredState>>;

/** The names that Slipstream's checkpoints give to the tensors of a parameter. */
const kinds = { fp32: "parameters", exp_avg: "first_moment", exp_avg_sq: "second_moment" } as const;

/** A universal checkpoint whose files have been looked at; each is opened again when it is read. */
export interface UniversalCheckpoint {
  readonly folder: string;
  /** Whether every parameter has Adam's moments; otherwise none has. */
  readonly hasMoments: boolean;
  /** Training steps done; undefined where nothing tells. */
  readonly step: number | undefined;
  /** Updates of the optimizer, which skipped steps do not count among; the steps where nothing tells. */
  readonly updates: number | undefined;
  /**
   * The weights, by their names without `module.`. Files of ZeRO-3 hold them flat; they are given the shape that
   * `shapeOf` tells where it has as many elements.
   */
  weights(shapeOf: (name: string) => readonly number[] | undefined): TensorReader;
  /** A parameter and its moments as pieces of a checkpoint, read a part at a time. `name` is the one to give them. */
  pieces(stored: string, name: string, shape: readonly number[]): StatePiece[];
}

/**
 * Opens DeepSpeed's universal checkpoint made of safetensors: reads the headers of its files, and the optimizer's step.
 * @throws FileFormatError where files are pickled, missing or corrupt, hold more than a tensor, or moments have another
 * shape than their weights.
 */
export async function openUniversal(folder: string): Promise<UniversalCheckpoint> {
  const { parameters: files, hasMoments, namedStep } = await readLayout(folder);
  const parameters = new Map<string, StoredParameter>();
  const steps = new Map<number, string>();
  for (const [name, paths] of files) {
    const found: StoredParameter = {};
    for (const state of universalStates) {
      const path = paths[state];
      if (path === undefined) continue;
      found[state] = await lookAt(path);
      requireFit(found.fp32!, found[state]);
    }
    parameters.set(name, found);
    if (paths.step !== undefined) steps.set(await readStep(paths.step), paths.step);
  }
  if (steps.size > 1) {
    const [first, second] = [...steps];
    throw new FileFormatError("unequal_steps", "parameters were updated a different number of times", {
      where: folder,
      expected: "the same step for every parameter: Slipstream counts updates of all of them together",
      received: `${first![0]} in ${first![1]}, ${second![0]} in ${second![1]}`,
    });
  }
  const [updates] = steps.keys();
  return {
    folder,
    hasMoments,
    step: namedStep ?? updates,
    updates: updates ?? namedStep,
    weights: (shapeOf) => new WeightsReader(folder, parameters, shapeOf),
    pieces: (stored, name, shape) => piecesOf(parameters.get(stored)!, name, shape),
  };
}

async function lookAt(path: string): Promise<StoredState> {
  await using reader = await openSafetensors(path);
  const names = reader.names();
  if (names.length !== 1) {
    throw new FileFormatError("not_one_tensor", "a file of a universal checkpoint holds one tensor", {
      where: path,
      expected: "one tensor, whatever its name",
      received: names.length === 0 ? "none" : `${names.length}: ${names.slice(0, 5).join(", ")}`,
      hint: "write each tensor of each parameter into a file of its own",
    });
  }
  const [tensor] = names as [string];
  const { dtype, shape } = reader.info(tensor);
  return { path, tensor, dtype, shape };
}

/** Requires floats of the shape of the weights. */
function requireFit(weights: StoredState, { path, dtype, shape }: StoredState): void {
  if (!isFloat(dtype)) {
    throw new FileFormatError("safetensors_dtype", "a tensor of a universal checkpoint is not of floats", {
      where: path,
      expected: "F32 (BF16, F16 and F64 are read too)",
      received: dtype,
    });
  }
  if (sameShape(weights.shape, shape)) return;
  throw new FileFormatError("wrong_shape", "a moment has another shape than its weights", {
    where: path,
    expected: `${formatShape(weights.shape)}, as ${weights.path}`,
    received: formatShape(shape),
    hint: "convert the checkpoint to safetensors again, or copy it whole",
  });
}

async function readStep(path: string): Promise<number> {
  const { tensor, shape } = await lookAt(path);
  await using reader = await openSafetensors(path);
  const { dtype } = reader.info(tensor);
  const stored = elementCount(shape) === 1 ? await reader.read(tensor) : undefined;
  const value = new Float32Array(1);
  if (stored !== undefined && isFloat(dtype)) convertInto(stored, dtype, value, "f32");
  else if (stored !== undefined) value[0] = Number(stored[0]);
  const step = value[0]!;
  if (stored !== undefined && Number.isSafeInteger(step) && step >= 0) return step;
  throw new FileFormatError("bad_step", "the step of a universal checkpoint is not a count of updates", {
    where: path,
    expected: "one integer from 0 on",
    received: stored === undefined ? `a tensor ${formatShape(shape)}` : String(step),
  });
}

/** The weights of all parameters as one reader. No file stays open. */
class WeightsReader implements TensorReader {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string> = new Map();
  readonly #parameters: ReadonlyMap<string, StoredParameter>;
  readonly #shapeOf: (name: string) => readonly number[] | undefined;

  constructor(
    path: string,
    parameters: ReadonlyMap<string, StoredParameter>,
    shapeOf: (name: string) => readonly number[] | undefined,
  ) {
    this.path = path;
    this.#parameters = parameters;
    this.#shapeOf = shapeOf;
  }

  names(): string[] {
    return [...this.#parameters.keys()];
  }

  has(name: string): boolean {
    return this.#parameters.has(name);
  }

  info(name: string): TensorInfo {
    const { dtype, shape } = this.#stored(name);
    const elements = elementCount(shape);
    const meant = this.#shapeOf(name);
    const isFlat = shape.length === 1 && meant !== undefined && elementCount(meant) === elements;
    return { dtype, shape: isFlat ? meant : shape, byteLength: elements * bytesPerElement(dtype) };
  }

  async read(name: string): Promise<TensorData> {
    return await withTensor(this.#stored(name), (reader, tensor) => reader.read(tensor));
  }

  async readInto(name: string, destination: Uint8Array): Promise<void> {
    await withTensor(this.#stored(name), (reader, tensor) => reader.readInto(tensor, destination));
  }

  async readRange(name: string, offset: number, destination: Uint8Array): Promise<void> {
    await withTensor(this.#stored(name), (reader, tensor) => reader.readRange(tensor, offset, destination));
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  #stored(name: string): StoredState {
    return this.#parameters.get(name)?.fp32 ?? throwMissing(this, name);
  }
}

async function withTensor<Result>(
  { path, tensor }: StoredState,
  work: (reader: TensorReader, tensor: string) => Promise<Result>,
): Promise<Result> {
  await using reader = await openSafetensors(path);
  return await work(reader, tensor);
}

function piecesOf(stored: StoredParameter, name: string, shape: readonly number[]): StatePiece[] {
  return universalStates.flatMap((state): StatePiece[] => {
    const file = stored[state];
    if (file === undefined) return [];
    const { path, dtype } = file;
    return [
      {
        ...{ kind: kinds[state], name, shape, box: wholeBox(shape), start: 0, end: elementCount(shape) },
        read: async (offset, into) => {
          const width = bytesPerElement(dtype);
          const bytes = new Uint8Array(into.length * width);
          await withTensor(file, (reader, tensor) => reader.readRange(tensor, offset * width, bytes));
          convertInto(viewOf(dtype, bytes.buffer), dtype, into, "f32");
        },
        write: async () => {
          throw new InternalError(`${path} is read only`);
        },
      },
    ];
  });
}
