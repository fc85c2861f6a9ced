import { expect, test } from "vitest";
import type { TensorData } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { symbolic } from "../../src/base/shape.ts";
import { add, leaf, matmul, multiply, reduce, reshape } from "../../src/graph/build.ts";
import { gradients } from "../../src/graph/gradient.ts";
import { apply, buildGraph } from "../../src/graph/graph.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";

/**
 * One compiled program serves every number of tokens up to its bound: attention on projected tokens with its
 * gradient, at lengths that divide nothing, at the bound, and at none.
 */
const [bound, heads, size] = [45, 2, 6];
const width = heads * size;
const tokens = symbolic("tokens", bound);
const x = leaf("x", "input", [tokens, width], "f32");
const weight = leaf("weight", "parameter", [3 * width, width], "f32");
const scale = leaf("scale", "parameter", [width], "f32");
const offsets = leaf("offsets", "input", [3], "i32");

const normal = apply("rms_norm", [x, scale], { epsilon: 1e-5 });
const projected = reshape(matmul(normal, weight, { transposeB: true }), [tokens, 3, heads, size]);
const part = (index: number) =>
  reshape(apply("slice", [projected], { starts: [0, index, 0, 0], sizes: [tokens, 1, heads, size] }), [
    tokens,
    heads,
    size,
  ]);
const attended = apply("attention", [part(0), part(1), part(2), offsets], {
  scale: 0.4,
  causal: true,
  window: 0,
});
const y = add(reshape(attended, [tokens, width]), x);
const loss = reshape(reduce("sum", multiply(y, y), [0, 1]), []);
const [dX, dWeight, dScale] = gradients(loss, [x, weight, scale]);
const graph = buildGraph("attention layer", [
  { name: "y", value: y },
  { name: "loss", value: loss },
  { name: "dX", value: dX! },
  { name: "dWeight", value: dWeight! },
  { name: "dScale", value: dScale! },
]);

const source = new PhiloxStream(7);
const draw = (count: number): Float32Array => Float32Array.from({ length: count }, () => source.nextNormal());
const inputs = { x: draw(bound * width), weight: draw(3 * width * width), scale: draw(width) };
const sizes = { y: bound * width, loss: 1, dX: bound * width, dWeight: 3 * width * width, dScale: width };

type Name = keyof typeof sizes;

function executableOf(backend: Backend) {
  const executable = backend.compile(graph);
  return async (count: number): Promise<Record<Name, TensorData>> => {
    const outputs = Object.fromEntries(
      Object.entries(sizes).map(([name, elements]) => [name, backend.allocate("f32", elements)]),
    ) as Record<Name, TensorData>;
    const offsetData = Int32Array.of(0, Math.floor(count / 3), count);
    await executable.run({ ...inputs, ...outputs, offsets: offsetData }, { tokens: count });
    return outputs;
  };
}

const native = executableOf(createNativeBackend());
const reference = executableOf(createReferenceBackend());

test.each([45, 17, 1, 33, 0])("with %i tokens", async (count) => {
  const [actual, expected] = await Promise.all([native(count), reference(count)]);
  for (const name of Object.keys(sizes) as Name[]) {
    let error = 0;
    let norm = 0;
    expected[name].forEach((value, index) => {
      error += (value - actual[name][index]!) ** 2;
      norm += value ** 2;
    });
    // Several ops in a row, the longest sum over all tokens' products.
    expect(Math.sqrt(error), name).toBeLessThanOrEqual(1e-6 * Math.sqrt(bound * width) * Math.sqrt(norm));
  }
  expect(actual.y.subarray(count * width).every((value) => value === 0)).toBe(true);
});
