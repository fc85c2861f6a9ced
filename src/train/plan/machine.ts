import type { DType } from "../../base/dtype.ts";
import { add, leaf, matmul } from "../../graph/build.ts";
import { buildGraph, type Value } from "../../graph/graph.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { Machine } from "../../runtime/planning.ts";

/** Large enough to reach a processor's pace, small enough to take a moment. */
const productSize = 1024;
/** Larger than any cache. */
const sweptElements = 32 << 20;
const repetitions = 4;

/** The shortest of a few runs of one program, in seconds. */
async function shortest(
  backend: Backend,
  operands: readonly Value<"leaf">[],
  value: Value,
  elements: number,
): Promise<number> {
  const executable = backend.compile(buildGraph("measure", [{ name: "result", value }]));
  const bindings = Object.fromEntries(
    operands.map(({ node }) => [node.attributes.name, backend.allocate(node.attributes.dtype, elements)]),
  );
  const bound = { ...bindings, result: backend.allocate(value.node.outputs[0]!.dtype, elements) };
  let best = Number.POSITIVE_INFINITY;
  try {
    for (let run = 0; run < repetitions; run++) {
      const { kernelSeconds } = await executable.run(bound);
      best = Math.min(best, kernelSeconds);
    }
  } finally {
    executable.dispose();
  }
  return best;
}

/**
 * Measures what a backend reaches in products of `dtype` and in sweeps over memory. Takes well under a second
 * and 256 MB for that moment.
 */
export async function measureMachine(backend: Backend, dtype: DType): Promise<Machine> {
  const [a, b] = ["a", "b"].map((name) => leaf(name, "input", [productSize, productSize], dtype));
  const product = await shortest(backend, [a!, b!], matmul(a!, b!), productSize ** 2);
  const x = leaf("x", "input", [sweptElements], "f32");
  const sweep = await shortest(backend, [x], add(x, 1), sweptElements);
  return { flops: (2 * productSize ** 3) / product, bandwidth: (8 * sweptElements) / sweep };
}
