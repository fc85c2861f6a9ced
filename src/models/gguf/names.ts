import { ConfigError } from "../../base/errors.ts";
import type { ModelFamily } from "../family.ts";

/** The architectures of GGUF files that Slipstream reads and writes, and the family that builds each. */
export const ggufArchitectures = ["llama", "qwen2", "qwen3", "gpt2"] as const;

/** A `general.architecture` that Slipstream knows. */
export type GgufArchitecture = (typeof ggufArchitectures)[number];

/** The architecture under which a family's models are stored. Mistral's layers are Llama's. */
export function architectureOf(modelType: string, where: string): GgufArchitecture {
  const name = modelType === "mistral" ? "llama" : modelType;
  const found = ggufArchitectures.find((architecture) => architecture === name);
  if (found !== undefined) return found;
  throw new ConfigError("unsupported_architecture", "models of this type have no GGUF form here", {
    where,
    expected: `model_type mistral, ${ggufArchitectures.join(", ")}`,
    received: modelType,
  });
}

const decoderOutside: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

const decoderInside: Readonly<Record<string, string>> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const gpt2Outside: Readonly<Record<string, string>> = {
  "transformer.wte.weight": "token_embd.weight",
  "transformer.wpe.weight": "position_embd.weight",
  "transformer.ln_f.weight": "output_norm.weight",
  "transformer.ln_f.bias": "output_norm.bias",
  "lm_head.weight": "output.weight",
};

const gpt2Inside: Readonly<Record<string, string>> = {
  ln_1: "attn_norm",
  "attn.c_attn": "attn_qkv",
  "attn.c_proj": "attn_output",
  ln_2: "ffn_norm",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};

/** The name in GGUF files of a parameter's Hugging Face name; undefined where GGUF has none. */
export function ggufName(architecture: GgufArchitecture, name: string): string | undefined {
  const isGpt2 = architecture === "gpt2";
  const outside = (isGpt2 ? gpt2Outside : decoderOutside)[name];
  if (outside !== undefined) return outside;
  const match = /^(?:model\.layers|transformer\.h)\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  if (match === null) return undefined;
  const [, layer, part, kind] = match;
  const inside = (isGpt2 ? gpt2Inside : decoderInside)[part!];
  return inside === undefined ? undefined : `blk.${layer}.${inside}.${kind}`;
}

/** How the elements of a stored tensor lie otherwise than those of the parameter. */
export type StoredOrder =
  | { readonly kind: "same" }
  /** Rows of each head in pairs for interleaved rotation: see `permute.ts`. */
  | { readonly kind: "interleaved"; readonly heads: number }
  /** [outputs, inputs] where the parameter is [inputs, outputs]. */
  | { readonly kind: "transposed" };

/** How a parameter is stored in GGUF files. */
export function storedOrder(
  architecture: GgufArchitecture,
  family: ModelFamily,
  name: string,
  heads: { readonly query: number; readonly key: number },
): StoredOrder {
  if (architecture === "llama") {
    if (/\.self_attn\.q_proj\.(weight|bias)$/.test(name)) return { kind: "interleaved", heads: heads.query };
    if (/\.self_attn\.k_proj\.(weight|bias)$/.test(name)) return { kind: "interleaved", heads: heads.key };
  }
  if (family.transposedWeights?.test(name) === true) return { kind: "transposed" };
  return { kind: "same" };
}
