import { FileFormatError } from "../../base/errors.ts";
import { nearest } from "../../base/suggest.ts";
import { decodeTensor, type GgufEntry, type GgufFile } from "../../checkpoint/gguf/index.ts";
import { rotaryFrequencies } from "../../nn/rotary.ts";
import type { ConfigJson } from "../family.ts";
import { ConfigReader } from "../read_config.ts";
import { type GgufArchitecture, ggufArchitectures } from "./names.ts";

/** The architecture of a file. @throws FileFormatError with the known ones where it is another. */
export function readArchitecture({ metadata, path }: GgufFile): GgufArchitecture {
  const name = metadata.need("general.architecture", "string");
  const found = ggufArchitectures.find((architecture) => architecture === name);
  if (found !== undefined) return found;
  const guess = nearest(name, ggufArchitectures);
  throw new FileFormatError(
    "unsupported_architecture",
    "a GGUF file holds a kind of model that is not supported",
    {
      where: `key "general.architecture" of ${path}`,
      expected: ggufArchitectures.join(", "),
      received: JSON.stringify(name),
      ...(guess === undefined ? {} : { hint: `the nearest is "${guess}"` }),
    },
  );
}

/** The shortest decimal that is the same in float32: files hold 1e-5 as 9.99999974737875e-6. */
function shortest(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

/**
 * The `config.json` that a Hugging Face folder of the same model would have.
 * @throws FileFormatError naming the key that is missing or wrong.
 */
export async function configOfGguf(file: GgufFile): Promise<ConfigJson> {
  const architecture = readArchitecture(file);
  const [vocabularySize] = file.tensor("token_embd.weight").shape;
  const common = { vocab_size: vocabularySize, torch_dtype: "float32", ...specialTokens(file) };
  return architecture === "gpt2"
    ? { ...common, ...gpt2Config(file) }
    : { ...common, ...(await decoderConfig(file, architecture)) };
}

function specialTokens({ metadata }: GgufFile): ConfigJson {
  const id = (name: string): number | undefined => metadata.get(`tokenizer.ggml.${name}_token_id`, "count");
  const ends = [...new Set([id("eos"), id("eot")])].filter((end) => end !== undefined);
  return {
    ...(id("bos") === undefined ? {} : { bos_token_id: id("bos") }),
    ...(ends.length === 0 ? {} : { eos_token_id: ends.length === 1 ? ends[0] : ends }),
  };
}

/** The number of layers: no more than there are tensors, so that a corrupt file builds no endless model. */
function blockCount({ metadata, tensors }: GgufFile, key: string): number {
  const count = metadata.need(key, "count");
  if (count <= tensors.size) return count;
  throw metadata.error(key, `at most ${tensors.size}, the number of tensors`, String(count));
}

function gpt2Config(file: GgufFile): ConfigJson {
  const { metadata, tensors } = file;
  const size = metadata.need("gpt2.embedding_length", "count");
  return {
    model_type: "gpt2",
    architectures: ["GPT2LMHeadModel"],
    n_embd: size,
    n_head: metadata.need("gpt2.attention.head_count", "count"),
    n_layer: blockCount(file, "gpt2.block_count"),
    n_inner: metadata.get("gpt2.feed_forward_length", "count") ?? 4 * size,
    n_positions: metadata.need("gpt2.context_length", "count"),
    layer_norm_epsilon: shortest(metadata.need("gpt2.attention.layer_norm_epsilon", "number")),
    activation_function: "gelu_new",
    tie_word_embeddings: !tensors.has("output.weight"),
  };
}

const decoderClasses = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
} as const;

async function decoderConfig(
  file: GgufFile,
  architecture: Exclude<GgufArchitecture, "gpt2">,
): Promise<ConfigJson> {
  const { metadata, tensors } = file;
  const key = (name: string): string => `${architecture}.${name}`;
  const experts = metadata.get(key("expert_count"), "count") ?? 0;
  if (experts > 0) throw metadata.error(key("expert_count"), "a dense model", `${experts} experts`);
  const window = metadata.get(key("attention.sliding_window"), "count") ?? 0;
  const type = architecture === "llama" && window > 0 ? "mistral" : architecture;
  const size = metadata.need(key("embedding_length"), "count");
  const heads = metadata.need(key("attention.head_count"), "count");
  const headSize =
    metadata.get(key("attention.key_length"), "count") ?? Math.floor(size / Math.max(1, heads));
  if (headSize % 2 !== 0) {
    throw metadata.error(key("attention.key_length"), "an even size of a head", String(headSize));
  }
  requireSameSize(file, key("attention.value_length"), headSize);
  requireSameSize(file, key("rope.dimension_count"), headSize);
  return {
    model_type: type,
    architectures: [decoderClasses[type]],
    hidden_size: size,
    intermediate_size: metadata.need(key("feed_forward_length"), "count"),
    num_hidden_layers: blockCount(file, key("block_count")),
    num_attention_heads: heads,
    num_key_value_heads: metadata.get(key("attention.head_count_kv"), "count") ?? heads,
    head_dim: headSize,
    hidden_act: "silu",
    rms_norm_eps: shortest(metadata.need(key("attention.layer_norm_rms_epsilon"), "number")),
    rope_theta: shortest(metadata.get(key("rope.freq_base"), "number") ?? 10_000),
    max_position_embeddings: metadata.need(key("context_length"), "count"),
    tie_word_embeddings: !tensors.has("output.weight"),
    ...(type === "llama" || type === "qwen3" ? { attention_bias: tensors.has("blk.0.attn_q.bias") } : {}),
    ...(type === "mistral" ? { sliding_window: window } : {}),
    ...(window > 0 && type.startsWith("qwen")
      ? { sliding_window: window, use_sliding_window: true, max_window_layers: 0 }
      : {}),
    ...(await ropeScaling(file, key, headSize)),
  };
}

function requireSameSize({ metadata }: GgufFile, key: string, headSize: number): void {
  const size = metadata.get(key, "count") ?? headSize;
  if (size !== headSize) throw metadata.error(key, `${headSize}, the size of a head`, String(size));
}

/**
 * Files hold Llama 3's scaling as divisors of the frequencies. Hugging Face's configs have these as "longrope",
 * here the same divisors for short texts and long ones.
 */
async function ropeScaling(
  file: GgufFile,
  key: (name: string) => string,
  headSize: number,
): Promise<ConfigJson> {
  const { metadata, tensors } = file;
  const type = metadata.get(key("rope.scaling.type"), "string") ?? "none";
  const factor = metadata.get(key("rope.scaling.factor"), "number");
  const linear = metadata.get(key("rope.scale_linear"), "number") ?? (type === "linear" ? factor : undefined);
  if (type !== "none" && type !== "linear") {
    throw metadata.error(key("rope.scaling.type"), "none or linear", JSON.stringify(type));
  }
  if (linear !== undefined && linear !== 1) return { rope_scaling: { rope_type: "linear", factor: linear } };
  if (!tensors.has("rope_freqs.weight")) return {};
  const { type: stored, shape } = file.tensor("rope_freqs.weight");
  if (shape.length !== 1 || shape[0] !== headSize / 2) {
    throw new FileFormatError("tensor_shape", "the rotary factors of a GGUF file do not fit its heads", {
      where: `tensor "rope_freqs.weight" of ${file.path}`,
      expected: `[${headSize / 2}]`,
      received: `[${shape.join(", ")}]`,
    });
  }
  const values = new Float32Array(shape[0]);
  decodeTensor(stored, await file.read("rope_freqs.weight"), values);
  const factors = [...values];
  const positions = metadata.need(key("context_length"), "count");
  return {
    rope_scaling: {
      rope_type: "longrope",
      short_factor: factors,
      long_factor: factors,
      attention_factor: 1,
      original_max_position_embeddings: positions,
    },
  };
}

/** The divisors of the rotary frequencies that a config asks for; undefined where there are none to store. */
export function rotaryFactors(config: ConfigJson, headSize: number, where: string): number[] | undefined {
  const { theta, scaling } = new ConfigReader(config, where).rotary(10_000);
  if (scaling.type === "none" || scaling.type === "linear") return undefined;
  const plain = rotaryFrequencies(headSize, theta, { type: "none" });
  return rotaryFrequencies(headSize, theta, scaling).map((frequency, pair) => plain[pair]! / frequency);
}

/** The size of an attention head of a decoder's config. */
export function headSizeOf(config: ConfigJson, where: string): number {
  const reader = new ConfigReader(config, where);
  const heads = reader.count("num_attention_heads");
  return reader.count("head_dim", Math.floor(reader.count("hidden_size") / heads));
}

/**
 * The metadata that describes a model of this config, which its family has accepted.
 * @throws ConfigError naming what GGUF cannot say.
 */
export function metadataOfConfig(
  config: ConfigJson,
  architecture: GgufArchitecture,
  where: string,
): Map<string, GgufEntry> {
  const entries = new Map<string, GgufEntry>([
    ["general.architecture", { type: "string", value: architecture }],
  ]);
  const reader = new ConfigReader(config, where);
  const uint32 = (name: string, value: number): unknown =>
    entries.set(`${architecture}.${name}`, { type: "uint32", value });
  const float32 = (name: string, value: number): unknown =>
    entries.set(`${architecture}.${name}`, { type: "float32", value });
  if (architecture === "gpt2") {
    const size = reader.count("n_embd", 768);
    reader.choice("activation_function", ["gelu_new"], "gelu_new");
    uint32("vocab_size", reader.count("vocab_size", 50257));
    uint32("context_length", reader.count("n_positions", 1024));
    uint32("embedding_length", size);
    uint32("feed_forward_length", reader.count("n_inner", 4 * size));
    uint32("block_count", reader.count("n_layer", 12));
    uint32("attention.head_count", reader.count("n_head", 12));
    float32("attention.layer_norm_epsilon", reader.number("layer_norm_epsilon", 1e-5));
    reader.finish();
    return entries;
  }
  const heads = reader.count("num_attention_heads");
  const headSize = headSizeOf(config, where);
  const { theta, scaling } = reader.rotary(10_000);
  uint32("vocab_size", reader.count("vocab_size"));
  uint32("context_length", reader.count("max_position_embeddings", 2048));
  uint32("embedding_length", reader.count("hidden_size"));
  uint32("block_count", reader.count("num_hidden_layers"));
  uint32("feed_forward_length", reader.count("intermediate_size"));
  uint32("rope.dimension_count", headSize);
  uint32("attention.head_count", heads);
  uint32("attention.head_count_kv", reader.count("num_key_value_heads", heads));
  uint32("attention.key_length", headSize);
  uint32("attention.value_length", headSize);
  float32("attention.layer_norm_rms_epsilon", reader.number("rms_norm_eps", 1e-6));
  float32("rope.freq_base", theta);
  if (scaling.type === "linear") {
    entries.set(`${architecture}.rope.scaling.type`, { type: "string", value: "linear" });
    float32("rope.scaling.factor", scaling.factor);
  }
  const window = config.use_sliding_window === false ? undefined : config.sliding_window;
  if (config.model_type === "mistral" && window !== undefined && window !== null) {
    uint32("attention.sliding_window", reader.count("sliding_window"));
  } else if (config.use_sliding_window === true && reader.has("sliding_window")) {
    reader.problem("use_sliding_window: GGUF has no windows of some layers only");
  }
  reader.finish();
  return entries;
}
