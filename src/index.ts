import { type Backend, createNativeBackend, createReferenceBackend } from "./backends.ts";
import type { DType, TensorData } from "./base/dtype.ts";
import { loadModelWith, type Model, type Precision, type Quantization } from "./models/index.ts";
import { Session } from "./tensor/session.ts";
import { makeTensor, type NestedNumbers, type Tensor } from "./tensor/tensor.ts";

export { SlipstreamError } from "./base/errors.ts";
export { type GenerateOptions, generate, Model, type Precision, type Quantization } from "./models/index.ts";
export { compile } from "./tensor/compile.ts";
export * from "./tensor/functions.ts";
export { grad, valueAndGrad } from "./tensor/grad.ts";
export { Tensor } from "./tensor/tensor.ts";

let native: Backend | undefined;

/** The native backend, made when it is first needed. */
function nativeBackend(): Backend {
  native ??= createNativeBackend();
  return native;
}

const session = new Session(nativeBackend);

/**
 * A tensor from numbers, nested arrays or typed data, computed with native kernels:
 * `await tensor([1, 2]).add(3).data()`.
 */
export function tensor(
  values: NestedNumbers | TensorData,
  options: { dtype?: DType; shape?: readonly number[] } = {},
): Tensor {
  return makeTensor(session, values, options);
}

/** Options of `loadModel`. */
export interface LoadModelOptions {
  /** "f32" by default. */
  readonly precision?: Precision;
  /** How to quantize weights that are floats in the file; by default they stay floats. */
  readonly quantization?: Quantization;
  /** "native" by default; "reference" computes in float64 TypeScript, for checks on tiny models. */
  readonly backend?: "native" | "reference";
}

/**
 * Loads a Hugging Face folder (`config.json`, safetensors) or a `.gguf` file.
 * @throws SlipstreamError saying what is wrong with which file.
 */
export function loadModel(path: string, options: LoadModelOptions = {}): Promise<Model> {
  const { backend, ...rest } = options;
  return loadModelWith(backend === "reference" ? createReferenceBackend() : nativeBackend(), path, rest);
}
