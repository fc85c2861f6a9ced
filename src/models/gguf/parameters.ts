import type { DType, TensorData } from "../../base/dtype.ts";
import { elementCount } from "../../base/shape.ts";
import { decodeTensor, type GgufFile, type GgufTensor } from "../../checkpoint/gguf/index.ts";
import { checkNames, convertInto } from "../../checkpoint/index.ts";
import type { Parameter, ParameterTable } from "../../nn/parameters.ts";
import type { ConfigJson, ModelFamily } from "../family.ts";
import { ConfigReader } from "../read_config.ts";
import { transposed } from "../transpose.ts";
import { type GgufArchitecture, ggufName, type StoredOrder, storedOrder } from "./names.ts";
import { halvesFromPairs } from "./permute.ts";

/** A parameter and the tensor of a GGUF file that holds it. */
export interface StoredParameter {
  readonly parameter: Parameter;
  readonly tensor: GgufTensor;
  readonly order: StoredOrder;
}

/** Query and key heads of a decoder's config. */
export function headsOf(config: ConfigJson, where: string): { readonly query: number; readonly key: number } {
  if (config.model_type === "gpt2") return { query: 1, key: 1 };
  const reader = new ConfigReader(config, where);
  const query = reader.count("num_attention_heads");
  return { query, key: reader.count("num_key_value_heads", query) };
}

/** Tensors that are read with the config, or that can be computed. */
const notParameters = [/^rope_freqs\.weight$/, /\.attn_rot_embd$/];

/**
 * Every parameter with its tensor, in the file's order.
 * @throws FileFormatError naming every tensor that is missing, extra or of another shape.
 */
export function matchParameters(
  file: GgufFile,
  architecture: GgufArchitecture,
  { config, family }: { readonly config: ConfigJson; readonly family: ModelFamily },
  parameters: ParameterTable,
): StoredParameter[] {
  const heads = headsOf(config, file.path);
  const expected = new Map<string, readonly number[]>();
  const matched = [...parameters.values()].map((parameter) => {
    const order = storedOrder(architecture, family, parameter.name, heads);
    const name = ggufName(architecture, parameter.name) ?? parameter.name;
    expected.set(name, order.kind === "transposed" ? parameter.shape.toReversed() : parameter.shape);
    return { parameter, order, name };
  });
  const tensors = {
    path: file.path,
    names: () => [...file.tensors.keys()],
    has: (name: string) => file.tensors.has(name),
    info: (name: string) => file.tensor(name),
  };
  checkNames(expected, tensors, {
    mayBeExtra: (name) => notParameters.some((pattern) => pattern.test(name)),
    hint: "the file's metadata and its tensors do not belong together: download or convert it again",
  });
  return matched
    .map(({ parameter, order, name }) => ({ parameter, order, tensor: file.tensor(name) }))
    .sort((a, b) => a.tensor.begin - b.tensor.begin);
}

/** Memory that is used again for one tensor after another. */
export class Scratch {
  #bytes = new Uint8Array(0);

  /** `length` bytes of whatever was there before; aligned for any elements. */
  take(length: number): Uint8Array<ArrayBuffer> {
    if (this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes.subarray(0, length);
  }
}

/** Reads parameters of one file, one at a time, in memory that it keeps. */
export class ParameterBuffer {
  readonly #file: GgufFile;
  readonly #raw = new Scratch();
  readonly #moved = new Scratch();
  readonly #floats = new Scratch();

  constructor(file: GgufFile) {
    this.#file = file;
  }

  /** The bytes of a parameter in the file's type, rows in the parameter's order. Valid until the next call. */
  async bytes({ tensor, order }: StoredParameter): Promise<Uint8Array> {
    const raw = this.#raw.take(tensor.byteLength);
    await this.#file.readInto(tensor.name, raw);
    if (order.kind !== "interleaved") return raw;
    const moved = this.#moved.take(tensor.byteLength);
    halvesFromPairs(raw, moved, tensor.shape[0]!, order.heads);
    return moved;
  }

  /** Reads a parameter into memory of its shape, as `dtype`. Blocks are decoded. */
  async into(stored: StoredParameter, memory: TensorData, dtype: DType): Promise<void> {
    const { tensor, order } = stored;
    if (order.kind === "same" && storedDType(tensor.type) === dtype) {
      const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
      await this.#file.readInto(tensor.name, bytes);
      return;
    }
    const bytes = await this.bytes(stored);
    const elements = elementCount(tensor.shape);
    const from = storedDType(tensor.type);
    if (from !== undefined && order.kind !== "transposed") {
      const data =
        from === "f32"
          ? new Float32Array(bytes.buffer, bytes.byteOffset, elements)
          : new Uint16Array(bytes.buffer, bytes.byteOffset, elements);
      convertInto(data, from, memory, dtype);
      return;
    }
    const floats = new Float32Array(this.#floats.take(elements * 4).buffer, 0, elements);
    decodeTensor(tensor.type, bytes, floats);
    convertInto(
      order.kind === "transposed" ? transposed(floats, tensor.shape) : floats,
      "f32",
      memory,
      dtype,
    );
  }
}

/** The dtype whose elements a type stores as they are. */
function storedDType(type: GgufTensor["type"]): "f32" | "f16" | "bf16" | undefined {
  if (type === "F32") return "f32";
  if (type === "F16") return "f16";
  return type === "BF16" ? "bf16" : undefined;
}
