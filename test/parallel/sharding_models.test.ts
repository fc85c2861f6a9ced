import { describe, expect, test } from "vitest";
import { printGraph } from "../../src/graph/print.ts";
import { decoderSharding } from "../../src/models/decoder/sharding.ts";
import { llama } from "../../src/models/llama/family.ts";
import { compareMesh, recordTraining } from "./sharding_support.ts";

const config = {
  model_type: "llama",
  vocab_size: 24,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};

describe("a tiny Llama over a mesh computes what one rank does", () => {
  test.each([{ tensor: 2 }])("%o", (sizes) => {
    const recorded = recordTraining(llama, config, 32);
    const { worst, worstName, sharded } = compareMesh(
      recorded,
      decoderSharding({ heads: 4, groups: 2 }),
      sizes,
      [7, 9],
    );
    if (process.env.PRINT) console.log(printGraph(sharded[0]!.graph));
    expect(worst, worstName).toBeLessThan(1e-11);
  });
});
