import { expect, test } from "vitest";
import { maximumElements } from "../../src/base/shape.ts";
import { isCollective } from "../../src/graph/ops.ts";
import { communicationOf } from "../../src/graph/rules/communication.ts";
import { decoderSharding } from "../../src/models/decoder/sharding.ts";
import { llama } from "../../src/models/llama/family.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import { trafficOf } from "../../src/parallel/sharding/explain.ts";
import { type ShardingMode, shardTraining } from "../../src/parallel/sharding/shard_training.ts";
import { recordTraining } from "./sharding_support.ts";

/** What is exchanged in models of usual sizes, against numbers by hand. Nothing is computed. */
const size = 4096;
const vocabulary = 32_000;
const layers = 2;
const groups = 8;
const headSize = 128;

function shardLlama(sizes: Partial<MeshSizes>, tokens: number, mode?: ShardingMode) {
  const config = {
    vocab_size: vocabulary,
    hidden_size: size,
    intermediate_size: 11_008,
    num_hidden_layers: layers,
    num_attention_heads: size / headSize,
    num_key_value_heads: groups,
    max_position_embeddings: 1 << 20,
  };
  const recorded = recordTraining(llama, config, tokens);
  const table = decoderSharding({ heads: size / headSize, groups });
  return shardTraining(recorded.graph, new Mesh(sizes, 0), recorded.parameters, table, mode);
}

/** How many collectives of each kind, and the bytes that a rank sends in them. */
function countsOf({ graph }: ReturnType<typeof shardLlama>) {
  const counts: Record<string, { count: number; bytes: number }> = {};
  for (const node of graph.nodes) {
    if (!isCollective(node.op)) continue;
    const { axes, bytes } = communicationOf(node)!;
    const present = counts[`${node.op} ${axes}`] ?? { count: 0, bytes: 0 };
    counts[`${node.op} ${axes}`] = { count: present.count + 1, bytes: present.bytes + bytes };
  }
  return counts;
}

test("norms have their part of the tokens, or all of them without sequence-sharded norms", () => {
  const [tokens, ranks] = [4096, 4];
  const elementsOfNorms = (cutsTokensOverTensor: boolean): number[] =>
    shardLlama({ tensor: ranks }, tokens, { attention: "heads", cutsTokensOverTensor }).graph.nodes.flatMap(
      ({ op, outputs }) => (op.startsWith("rms_norm") ? [maximumElements(outputs[0]!.shape)] : []),
    );
  const norms = 2 * (2 * layers + 1);
  expect(elementsOfNorms(true)).toEqual(new Array(norms).fill((tokens * size) / ranks));
  expect(elementsOfNorms(false)).toEqual(new Array(norms).fill(tokens * size));
});

test.each([2, 4, 8])(
  "Megatron's two sums a block half with sequence-sharded norms over %i ranks",
  (ranks) => {
    const tokens = 4096;
    const activations = tokens * size * 4;
    const part = (ranks - 1) / ranks;
    const weight = vocabulary * size * 4;
    const counts = countsOf(shardLlama({ tensor: ranks }, tokens));
    // A gather before and a scattered sum after each half of a block, forward and backward; the output projection is
    // gathered for the loss, and its gradient summed.
    const halves = 2 * 2 * layers;
    expect(counts["all_gather tensor"]!.count).toBe(halves + 1);
    expect(counts["reduce_scatter tensor"]!.count).toBe(halves + 1);
    expect(counts["all_gather tensor"]!.bytes).toBeCloseTo(part * (halves * activations + weight), 0);
    expect(counts["reduce_scatter tensor"]!.bytes).toBeCloseTo(part * (halves * activations + weight), 0);
    // The embedding has all tokens of its columns: exchanged for all columns of a rank's tokens, and back.
    expect(counts["all_to_all tensor"]!.count).toBe(2);
    expect(counts["all_to_all tensor"]!.bytes).toBeCloseTo((2 * part * activations) / ranks, 0);
    // The gradients of the norms and the loss, together.
    expect(counts["all_reduce tensor"]!.count).toBe(1);
    expect(counts["all_reduce tensor"]!.bytes).toBeCloseTo(2 * part * ((2 * layers + 1) * size + 1) * 4, 0);
    expect(Object.keys(counts)).toHaveLength(4);
  },
);

test.each([2, 4, 8])("Ulysses' exchanges around attention and nothing else over %i ranks", (ranks) => {
  const tokens = 8192;
  const part = (ranks - 1) / ranks;
  const counts = countsOf(shardLlama({ sequence: ranks }, tokens));
  // Queries, keys and values in one bucket, and the result; the same backward.
  const exchanged = (tokens / ranks) * (2 * size + 2 * groups * headSize) * 4;
  expect(counts).toEqual({
    "all_to_all sequence": { count: 4 * layers, bytes: 2 * layers * part * exchanged },
  });
});

test("what a rank sends under Ulysses stays the same when tokens and ranks grow together", () => {
  const sent = [2, 4, 8].map((ranks) => {
    const [traffic] = trafficOf(shardLlama({ sequence: ranks }, ranks * 2048));
    // A rank keeps 1 / ranks of what it exchanges.
    return traffic!.bytes / (1 - 1 / ranks);
  });
  expect(sent[1]).toBeCloseTo(sent[0]!, 0);
  expect(sent[2]).toBeCloseTo(sent[0]!, 0);
});

test("over both axes each exchange is of what the other has left", () => {
  const [tokens, tensor, sequence] = [8192, 2, 4];
  const counts = countsOf(shardLlama({ tensor, sequence }, tokens));
  const exchanged = (tokens / sequence) * ((2 * size + 2 * groups * headSize) / tensor) * 4;
  expect(counts["all_to_all sequence"]!.count).toBe(4 * layers);
  expect(counts["all_to_all sequence"]!.bytes).toBeCloseTo(2 * layers * (3 / 4) * exchanged, 0);
  expect(counts["all_gather tensor"]!.count).toBe(4 * layers + 1);
  expect(counts["reduce_scatter tensor"]!.count).toBe(4 * layers + 1);
});
