import { expect, test } from "vitest";
import { createNativeBackend, createReferenceBackend } from "../backends.ts";
import type { DType, TensorData } from "../base/dtype.ts";
import { leaf } from "../graph/build.ts";
import { buildGraph } from "../graph/graph.ts";
import { cacheCopy, cacheWriteQuantized, pagedAttention, type QuantizedCache } from "./functions.ts";
import { Tensor } from "./tensor.ts";

/**
 * One head of size 1, blocks of two tokens. Block 0 holds a prompt of two tokens; block 1 becomes a copy of it, in
 * which a second answer overwrites the last token.
 */
const slots = 4;
const input = (name: string, dtype: DType, shape: number[]) => new Tensor(leaf(name, "input", shape, dtype));
const state = (name: string): QuantizedCache => ({
  cache: new Tensor(leaf(name, "state", [slots, 1, 1], "i8")),
  scales: new Tensor(leaf(`${name}_scales`, "state", [slots, 1], "f32")),
});
const batch = {
  queryOffsets: input("query_offsets", "i32", [3]),
  contextLengths: input("context_lengths", "i32", [2]),
  blockTables: input("block_tables", "i32", [2, 1]),
  blockSize: 2,
};
const places = input("slots", "i32", [1]);
const [sources, destinations] = [input("sources", "i32", [1]), input("destinations", "i32", [1])];
const copied = ({ cache, scales }: QuantizedCache): QuantizedCache => ({
  cache: cacheCopy(cache, sources, destinations, 2),
  scales: cacheCopy(scales, sources, destinations, 2),
});
const written = (name: string): QuantizedCache =>
  cacheWriteQuantized(copied(state(name)), input(`new_${name}`, "f32", [1, 1, 1]), places);
const attended = pagedAttention(input("q", "f32", [2, 1, 1]), written("keys"), written("values"), batch, {
  scale: 1,
  window: 0,
});
const graph = buildGraph("step", [{ name: "out", value: attended.value }]);

test.each([
  ["native", createNativeBackend],
  ["reference", createReferenceBackend],
])(
  "answers that share a prompt part by copying a block of a quantized cache, on %s",
  async (_name, create) => {
    const backend = create();
    const executable = backend.compile(graph);
    const bindings: Record<string, TensorData> = {
      keys: Int8Array.of(0, 0, 9, 9),
      keys_scales: Float32Array.of(1, 1, 9, 9),
      values: Int8Array.of(100, 50, 9, 9),
      values_scales: Float32Array.of(0.25, 0.5, 9, 9),
      sources: Int32Array.of(0),
      destinations: Int32Array.of(1),
      slots: Int32Array.of(3),
      new_keys: Float32Array.of(Math.log(3)),
      new_values: Float32Array.of(-127),
      q: Float32Array.of(1, 1),
      query_offsets: Int32Array.of(0, 1, 2),
      context_lengths: Int32Array.of(2, 2),
      block_tables: Int32Array.of(0, 1),
      out: new Float32Array(2),
    };
    await executable.run(bindings);
    expect([...bindings.keys!]).toEqual([0, 0, 0, 127]);
    expect([...bindings.values!]).toEqual([100, 50, 100, -127]);
    expect([...bindings.values_scales!]).toEqual([0.25, 0.5, 0.25, 1]);
    // The first sequence: the mean of 25 and 25. The second: 25 and -127, weighed 1 to 3.
    expect(bindings.out![0]).toBeCloseTo(25, 5);
    expect(bindings.out![1]).toBeCloseTo((25 - 3 * 127) / 4, 4);
    executable.dispose();
  },
);
