import { z } from "zod";
import { atLeast, count, integer, text } from "./fields.ts";

const pretrained = z
  .strictObject({
    type: z.undefined().optional(),
    path: text().describe(
      "A Hugging Face model folder to fine-tune: `config.json`, safetensors and `tokenizer.json`. Its shapes come from its own `config.json`.",
    ),
  })
  .meta({ variant: "path" });

const ropeScaling = z
  .strictObject({
    rope_type: z
      .literal("llama3")
      .describe("How the frequencies are scaled; Llama 3's is the one available."),
    factor: atLeast(1).describe("How many times longer the context becomes."),
    low_freq_factor: z
      .number()
      .positive()
      .default(1)
      .describe("Wavelengths above the original context over this are scaled in full."),
    high_freq_factor: z
      .number()
      .positive()
      .default(4)
      .describe("Wavelengths below the original context over this are left alone."),
    original_max_position_embeddings: count().describe(
      "The context that the unscaled frequencies were made for.",
    ),
  })
  .optional()
  .describe("Scaling of rotary frequencies for longer contexts (Llama 3.1).");

/** The keys that every family but GPT-2 shares, under Hugging Face's names. */
const decoderKeys = {
  hidden_size: count().describe("Width of the residual stream."),
  num_hidden_layers: count().describe("Transformer blocks."),
  num_attention_heads: count().describe("Query heads of each block."),
  num_key_value_heads: count()
    .optional()
    .describe(
      "Key and value heads, each shared by a group of query heads; 1 is multi-query attention. Without it, as many as query heads.",
    ),
  head_dim: count().optional().describe("Width of a head. Without it, `hidden_size / num_attention_heads`."),
  intermediate_size: count().describe("Width inside the feed-forward (SwiGLU) layers."),
  vocab_size: count().optional().describe("Rows of the embedding. Without it, the tokenizer's size."),
  max_position_embeddings: count()
    .default(2048)
    .describe("The longest sequence that the model is meant for, in tokens."),
  rope_theta: z.number().positive().default(10_000).describe("Base of the rotary position frequencies."),
  rms_norm_eps: z.number().positive().default(1e-6).describe("Added to the mean square inside RMSNorm."),
  tie_word_embeddings: z.boolean().default(false).describe("Use the embedding as the output projection too."),
  initializer_range: atLeast(0).default(0.02).describe("Standard deviation of the initial weights."),
};

const slidingWindow = count()
  .optional()
  .describe("Tokens that a position may look back on, itself included. Without it, all of them.");

const gpt2Keys = {
  n_embd: count().describe("Width of the residual stream."),
  n_layer: count().describe("Transformer blocks."),
  n_head: count().describe("Attention heads of each block."),
  n_inner: count().optional().describe("Width inside the feed-forward layers. Without it, 4 times `n_embd`."),
  n_positions: count().default(1024).describe("Learned positions: the longest sequence, in tokens."),
  vocab_size: count().optional().describe("Rows of the embedding. Without it, the tokenizer's size."),
  layer_norm_epsilon: z.number().positive().default(1e-5).describe("Added to the variance inside LayerNorm."),
  tie_word_embeddings: z.boolean().default(true).describe("Use the embedding as the output projection too."),
  initializer_range: atLeast(0).default(0.02).describe("Standard deviation of the initial weights."),
};

function family<Name extends string, Keys extends z.ZodRawShape>(name: Name, keys: Keys) {
  return z
    .strictObject({
      type: z
        .literal(name)
        .describe(
          "The family of a model trained from scratch; its shapes stand beside it. Leave it out to fine-tune `path`.",
        ),
      ...keys,
    })
    .meta({ variant: name });
}

/** `model`: a folder to fine-tune, or the shapes of a new model under Hugging Face's names. */
export const modelSchema = z
  .discriminatedUnion("type", [
    pretrained,
    family("llama", { ...decoderKeys, rope_scaling: ropeScaling }),
    family("mistral", { ...decoderKeys, sliding_window: slidingWindow }),
    family("qwen2", { ...decoderKeys, sliding_window: slidingWindow }),
    family("qwen3", { ...decoderKeys, sliding_window: slidingWindow }),
    family("gpt2", gpt2Keys),
  ])
  .describe("What is trained: a model folder (`path`), or a new model of some `type` and shape.");

/** `tokenizer`: one to load, or one to train. */
export const tokenizerSchema = z
  .strictObject({
    path: text().optional().describe("A `tokenizer.json`, or the folder that holds one."),
    train: z
      .strictObject({
        vocabulary_size: integer(258).describe(
          "Tokens to learn, the 256 bytes and the special tokens included.",
        ),
      })
      .optional()
      .describe("Train a byte-level BPE tokenizer on `data.train` first."),
  })
  .optional()
  .describe("How text becomes tokens. Without it, the tokenizer of the folder `model.path`.");
