import { expect, test } from "vitest";
import { symbolic } from "../../base/shape.ts";
import { add, leaf, matmul, unary } from "../../graph/build.ts";
import { apply, buildGraph } from "../../graph/graph.ts";
import { createNullBackend } from "./backend.ts";

const backend = createNullBackend({ threads: 2 });
const tokens = symbolic("tokens", 32);
const x = leaf("x", "input", [tokens, 8], "f32");
const w = leaf("w", "parameter", [8, 16], "f32");
const graph = buildGraph("g", [{ name: "y", value: unary("exp", add(matmul(x, w), 1)) }]);

test("memory is planned for the bound", () => {
  const { memory } = backend.compile(graph);
  // The product; the map writes to y, which the caller binds.
  expect(memory.arena).toBe(32 * 16 * 4);
  // One panel of 32 columns.
  expect(memory.prepared).toBe(32 * 8 * 4);
  expect(memory.bound).toBe((32 * 8 + 8 * 16 + 32 * 16) * 4);
  expect(memory.constants).toBe(0);
});

test("arithmetic and traffic follow the sizes of the run", () => {
  const executable = backend.compile(graph);
  // 2 M N K for the product, two operations an element for the map.
  expect(executable.flops).toBe(2 * 32 * 16 * 8 + 2 * 32 * 16);
  expect(executable.cost({ tokens: 4 }).flops).toBe(2 * 4 * 16 * 8 + 2 * 4 * 16);
  const packing = 8 * 16 * 4 + 32 * 8 * 4;
  const product = (4 * 8 + 4 * 16) * 4 + 32 * 8 * 4;
  expect(executable.cost({ tokens: 4 }).bytes).toBe(packing + product + 2 * 4 * 16 * 4);
});

test("a step takes as long as its arithmetic or its traffic", () => {
  const executable = backend.compile(graph);
  const { flops, bytes } = executable.cost();
  expect(executable.seconds({ flops: 1, bandwidth: 1e30 })).toBe(flops);
  expect(executable.seconds({ flops: 1e30, bandwidth: 1 })).toBe(bytes);
});

test("nothing is allocated, however much is asked", () => {
  expect(backend.allocate("bf16", 70e9)).toHaveLength(0);
  const huge = leaf("huge", "parameter", [1 << 17, 1 << 17], "f32");
  const product = matmul(leaf("x", "input", [8, 1 << 17], "f32"), huge);
  const { memory } = backend.compile(buildGraph("huge", [{ name: "y", value: product }]));
  expect(memory.prepared).toBe(2 ** 36);
});

test("a loss keeps a chunk of logits beside the arena", () => {
  const [hidden, weight] = [leaf("h", "input", [1024, 64], "f32"), leaf("v", "parameter", [4096, 64], "f32")];
  const targets = leaf("t", "input", [1024], "i32");
  const gradients = leaf("g", "input", [1024], "f32");
  const node = apply("linear_cross_entropy_gradient", [gradients, hidden, weight, targets], {});
  const { memory } = backend.compile(buildGraph("loss", [{ name: "losses", value: node }]));
  expect(memory.scratch).toBeGreaterThan(512 * 4096 * 4);
  expect(memory.scratch).toBeLessThan(32 * 2 ** 20);
});

test("running checks what is bound, and does nothing", async () => {
  const executable = backend.compile(graph);
  const y = new Float32Array(16).fill(7);
  const bound = { x: new Float32Array(0), w: new Float32Array(0), y };
  expect(await executable.run(bound, { tokens: 1 })).toEqual({ seconds: 0, kernelSeconds: 0 });
  expect(y).toEqual(new Float32Array(16).fill(7));
  await expect(executable.run({ x: y, y }, { tokens: 1 })).rejects.toThrow(/nothing is bound to "w"/);
  await expect(executable.run(bound, { tokens: 33 })).rejects.toThrow(/"tokens" has no value that fits/);
  executable.dispose();
  await expect(executable.run(bound, { tokens: 1 })).rejects.toThrow(/internal: program g was disposed/);
});
