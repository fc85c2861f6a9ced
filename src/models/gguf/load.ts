import type { DType, TensorData } from "../../base/dtype.ts";
import { type BlockType, formatOfBlocks, type QuantizedParameter } from "../../base/quantized_format.ts";
import { elementCount } from "../../base/shape.ts";
import { type BlockTypeName, type GgufFile, isBlockType, openGguf } from "../../checkpoint/gguf/index.ts";
import { ParameterSpace } from "../../nn/parameters.ts";
import type { Backend } from "../../runtime/backend.ts";
import { familyOf } from "../families.ts";
import type { ModelFamily } from "../family.ts";
import { Model, type ModelParts } from "../model.ts";
import { WeightPacker } from "../pack_weights.ts";
import { matrixOf, planQuantization, type Quantization, refuseSecondQuantization } from "../quantization.ts";
import { WeightMemory } from "../weight_memory.ts";
import { configOfGguf, readArchitecture } from "./config.ts";
import { matchParameters, ParameterBuffer, type StoredParameter } from "./parameters.ts";

/** Whether a path is that of a GGUF file: its name ends with `.gguf`. */
export function isGgufPath(path: string): boolean {
  return path.toLowerCase().endsWith(".gguf");
}

/** How a GGUF file is loaded. */
export interface GgufLoadOptions {
  readonly precision?: "f32" | "bf16";
  readonly quantization?: Quantization;
  readonly dequantize?: boolean;
}

/** The names of block types where kernels know them. */
const blockTypeOf: Readonly<Record<BlockTypeName, BlockType>> = {
  Q8_0: "q8_0",
  Q4_0: "q4_0",
  Q4_K: "q4_k",
  Q5_K: "q5_k",
  Q6_K: "q6_k",
};

/** Tensors that are read at the same time: one from the file while another is packed. */
const readersAtOnce = 3;

/**
 * Loads a GGUF file onto a backend. Every tensor is read once, from the file into where it stays or into a
 * buffer from which it is packed; quantized matrices stay quantized.
 * @throws FileFormatError, ConfigError naming the key or tensor that is at fault.
 */
export async function loadGgufModel(
  backend: Backend,
  path: string,
  options: GgufLoadOptions = {},
): Promise<Model> {
  await using file = await openGguf(path);
  const dtype: DType = options.precision ?? "f32";
  const config = await configOfGguf(file);
  const family = familyOf(config, path);
  const space = ParameterSpace.create(dtype);
  const language = family.build(config, space, path);
  const stored = matchParameters(file, readArchitecture(file), { config, family }, space.table);
  const parts = { family, config, language, parameters: space.table, backend, dtype };
  return new Model({ ...parts, ...(await readStored(file, stored, parts, options)) });
}

/** What is done with one parameter. */
type Treatment =
  | { readonly kind: "float" }
  | { readonly kind: "repack"; readonly type: BlockType; readonly packed: QuantizedParameter }
  | { readonly kind: "quantize"; readonly packed: QuantizedParameter; readonly transposed: boolean };

function treatmentOf(
  { parameter, tensor }: StoredParameter,
  family: ModelFamily,
  options: GgufLoadOptions,
  path: string,
): Treatment {
  const { quantization, dequantize } = options;
  if (isBlockType(tensor.type)) {
    if (quantization !== undefined) refuseSecondQuantization(path, `${tensor.name} in ${tensor.type}`);
    const matrix = matrixOf(parameter, family);
    if (dequantize === true || matrix === undefined) return { kind: "float" };
    const type = blockTypeOf[tensor.type];
    const { rows, columns } = matrix;
    return { kind: "repack", type, packed: { format: formatOfBlocks(type), rows, columns } };
  }
  const plan = quantization === undefined ? undefined : planQuantization(parameter, family, quantization);
  if (plan === undefined) return { kind: "float" };
  const { transposed, ...packed } = plan;
  return { kind: "quantize", packed, transposed };
}

async function readStored(
  file: GgufFile,
  stored: readonly StoredParameter[],
  parts: Pick<ModelParts, "backend" | "dtype" | "family">,
  options: GgufLoadOptions,
): Promise<Pick<ModelParts, "weights" | "quantized">> {
  const { backend, dtype, family } = parts;
  const weights = new Map<string, TensorData>();
  const quantized = new Map<string, QuantizedParameter>();
  const memory = new WeightMemory(backend);
  const packer = new WeightPacker(backend, memory);
  const load = async (one: StoredParameter, buffer: ParameterBuffer): Promise<TensorData> => {
    const { tensor, parameter } = one;
    const treatment = treatmentOf(one, family, options, file.path);
    switch (treatment.kind) {
      case "float": {
        const floats = memory.allocate(dtype, elementCount(parameter.shape));
        await buffer.into(one, floats, dtype);
        return floats;
      }
      case "repack": {
        const { type, packed } = treatment;
        quantized.set(parameter.name, packed);
        return await packer.repack(type, packed.rows, packed.columns, await buffer.bytes(one));
      }
      case "quantize": {
        const { packed } = treatment;
        quantized.set(parameter.name, packed);
        // GGUF has every matrix as [outputs, inputs], whatever its family does.
        const floats = new Float32Array(elementCount(tensor.shape));
        await buffer.into({ ...one, order: untransposed(one) }, floats, "f32");
        return await packer.quantize(packed, floats, "f32");
      }
    }
  };
  const pending = [...stored];
  const work = async (): Promise<void> => {
    const buffer = new ParameterBuffer(file);
    try {
      for (let one = pending.shift(); one !== undefined; one = pending.shift()) {
        weights.set(one.parameter.name, await load(one, buffer));
      }
    } catch (error) {
      // The others stop too.
      pending.length = 0;
      throw error;
    }
  };
  try {
    const workers = await Promise.allSettled(Array.from({ length: readersAtOnce }, work));
    const failed = workers.find((worker) => worker.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  } finally {
    packer.dispose();
  }
  return { weights, quantized };
}

function untransposed({ order }: StoredParameter): StoredParameter["order"] {
  return order.kind === "transposed" ? { kind: "same" } : order;
}
