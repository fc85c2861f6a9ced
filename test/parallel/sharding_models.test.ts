import { describe, expect, test } from "vitest";
import { decoderSharding } from "../../src/models/decoder/sharding.ts";
import { gpt2 } from "../../src/models/gpt2/family.ts";
import { gpt2Sharding } from "../../src/models/gpt2/sharding.ts";
import { llama } from "../../src/models/llama/family.ts";
import { qwen3 } from "../../src/models/qwen3/family.ts";
import { compareMesh, recordTraining } from "./sharding_support.ts";

const config = {
  vocab_size: 24,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};
const gpt2Config = {
  vocab_size: 24,
  n_embd: 16,
  n_head: 4,
  n_layer: 2,
  n_positions: 64,
};
const meshes = [
  { tensor: 2 },
  { tensor: 4 },
  { sequence: 2 },
  { sequence: 4 },
  { sequence: 2, tensor: 2 },
  { data: 2, sequence: 2 },
];

// Three sequences whose lengths do not add up to a multiple of the ranks.
const lengths = [7, 3, 9];

describe("over a mesh, models compute what one rank does", () => {
  test.each(meshes)("Llama with grouped heads over %o", (sizes) => {
    const recorded = recordTraining(llama, config, 32);
    const table = decoderSharding({ heads: 4, groups: 2 });
    const { worst, worstName } = compareMesh(recorded, table, sizes, lengths);
    expect(worst, worstName).toBeLessThan(1e-11);
  });

  test.each(meshes)("Qwen3 with head norms and tied embeddings over %o", (sizes) => {
    const recorded = recordTraining(qwen3, { ...config, tie_word_embeddings: true, head_dim: 8 }, 32);
    const table = decoderSharding({ heads: 4, groups: 2 });
    const { worst, worstName } = compareMesh(recorded, table, sizes, lengths);
    expect(worst, worstName).toBeLessThan(1e-11);
  });

  test.each(meshes)("GPT-2 over %o", (sizes) => {
    const recorded = recordTraining(gpt2, gpt2Config, 32);
    const { worst, worstName } = compareMesh(recorded, gpt2Sharding({ heads: 4 }), sizes, lengths);
    expect(worst, worstName).toBeLessThan(1e-11);
  });
});
