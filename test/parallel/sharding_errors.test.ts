import { describe, expect, test } from "vitest";
import { decoderSharding } from "../../src/models/decoder/sharding.ts";
import { llama } from "../../src/models/llama/family.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import { padBatch } from "../../src/parallel/sharding/cut_batch.ts";
import { explainSharding } from "../../src/parallel/sharding/explain.ts";
import { localParameters, shardTraining } from "../../src/parallel/sharding/shard_training.ts";
import { recordTraining } from "./sharding_support.ts";

const config = {
  vocab_size: 512,
  hidden_size: 96,
  intermediate_size: 160,
  num_hidden_layers: 1,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};
const table = decoderSharding({ heads: 6, groups: 2 });

function shardTiny(sizes: Partial<MeshSizes>) {
  const { graph, parameters } = recordTraining(llama, config, 64);
  return shardTraining(graph, new Mesh(sizes, 0), parameters, table);
}

describe("what does not divide is refused with what would", () => {
  test("heads over tensor ranks", () => {
    expect(() => shardTiny({ tensor: 4 })).toThrow(
      /heads do not divide[\s\S]*divides 6 heads: 1, 2, 3, 6[\s\S]*4/,
    );
  });
  test("heads over both axes together", () => {
    expect(() => shardTiny({ tensor: 2, sequence: 2 })).toThrow(/parallel.tensor x parallel.sequence/);
  });
  test("a parameter's own size", () => {
    const { parameters } = recordTraining(llama, { ...config, intermediate_size: 41 }, 64);
    expect(() => localParameters(new Mesh({ tensor: 2 }, 0), parameters, table)).toThrow(
      /gate_proj.weight does not divide[\s\S]*parallel.tensor[\s\S]*a divisor of the size 41: 1, 41[\s\S]*2 ranks/,
    );
  });
  test("fewer key/value heads than ranks stay whole, and are counted once", () => {
    const { parameters } = recordTraining(llama, { ...config, intermediate_size: 162 }, 64);
    const locals = localParameters(new Mesh({ tensor: 3 }, 1), parameters, table);
    const keys = locals.find(({ name }) => name.endsWith("k_proj.weight"))!;
    expect(keys.box.sizes).toEqual(keys.shape);
    expect(keys.replicatedOver).toEqual(["tensor"]);
    const queries = locals.find(({ name }) => name.endsWith("q_proj.weight"))!;
    expect(queries.box).toEqual({ starts: [32, 0], sizes: [32, 96] });
    expect(queries.replicatedOver).toEqual([]);
    expect(queries.reducedOver).toEqual(["data"]);
  });
});

test("padding makes a sequence of its own without targets", () => {
  const padded = padBatch(
    {
      tokens: Int32Array.of(5, 6, 7),
      targets: Int32Array.of(6, 7, -1),
      positions: Int32Array.of(0, 1, 2),
      offsets: Int32Array.of(0, 3),
    },
    4,
  );
  expect(padded).toEqual({
    tokens: Int32Array.of(5, 6, 7, 0),
    targets: Int32Array.of(6, 7, -1, -1),
    positions: Int32Array.of(0, 1, 2, 0),
    offsets: Int32Array.of(0, 3, 4),
  });
});

test("what was chosen is told in words", () => {
  expect(explainSharding(shardTiny({ tensor: 2 }))).toMatchSnapshot();
});
