import { describe, expect, test } from "vitest";
import { type DType, decode, isFloat, type TensorData } from "../../src/base/dtype.ts";
import { elementCount } from "../../src/base/shape.ts";
import { leaf } from "../../src/graph/build.ts";
import { buildGraph, type Graph, type GraphOutput, typeOf } from "../../src/graph/graph.ts";
import { accumulatingOutputs, type OpName, opNames } from "../../src/graph/ops.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";
import { encodeInput, graphOf, type OpSamples, type Sample } from "./samples/sample.ts";
import { samples } from "./samples.ts";

/**
 * Every op on every backend: each sample's small graph gives what its reference semantics give in float64 on
 * the same rounded operands, to the bar of its dtype.
 */
const reference = createReferenceBackend();
const backends: readonly { readonly name: string; readonly backend: Backend }[] = [
  { name: "native, one thread", backend: createNativeBackend({ threads: 1 }) },
  { name: "native, two threads", backend: createNativeBackend({ threads: 2 }) },
  { name: "native, scalar", backend: createNativeBackend({ threads: 2, isa: "scalar" }) },
];

/** Relative error of a whole tensor (Frobenius) that rounding explains. */
function barOf(dtypes: readonly DType[], reduction: number): number {
  if (dtypes.includes("bf16")) return 4e-3;
  if (dtypes.includes("f16")) return 1e-3;
  return 1e-6 * Math.sqrt(Math.max(reduction, 1));
}

/** What memory of results holds before a run: 1 as float32, small as bits of other dtypes. */
const before = 1;

interface Result {
  readonly dtype: DType;
  readonly values: Float64Array;
}

/** Runs a sample; float memory of the reference stays in float64, so that it rounds nothing. */
async function run<Op extends OpName>(backend: Backend, graph: Graph, sample: Sample<Op>): Promise<Result[]> {
  const wide = backend.name === "reference";
  const bindings: Record<string, TensorData> = {};
  sample.inputs.forEach((input, index) => {
    const exact = wide && isFloat(input.dtype);
    const data = backend.allocate(exact ? "f64" : input.dtype, input.values.length);
    data.set(exact ? input.values : encodeInput(input));
    bindings[`x${index}`] = data;
  });
  const places = graph.outputs.map(({ name, value, target }) => {
    const type = typeOf(value);
    const dtype = wide && isFloat(type.dtype) ? "f64" : type.dtype;
    const place = target?.node.attributes.name ?? name;
    // What is there before is added to or overwritten.
    bindings[place] ??= backend.allocate(dtype, elementCount(type.shape as number[])).fill(before);
    return { data: bindings[place]!, stored: dtype, dtype: type.dtype };
  });
  const executable = backend.compile(graph);
  await executable.run(bindings);
  executable.dispose();
  return places.map(({ data, stored, dtype }) => ({ dtype, values: decode(stored, data) }));
}

/** The error of a tensor relative to what it should be; elements that are not finite must be equal. */
function relativeError(actual: Float64Array, expected: Float64Array): number {
  let error = 0;
  let size = 0;
  actual.forEach((value, index) => {
    const wanted = expected[index]!;
    if (Object.is(value, wanted) || value === wanted) {
      if (Number.isFinite(wanted)) size += wanted * wanted;
      return;
    }
    error += (value - wanted) ** 2;
    size += wanted * wanted;
  });
  return size === 0 ? Math.sqrt(error) : Math.sqrt(error / size);
}

async function compare<Op extends OpName>(
  backend: Backend,
  op: Op,
  sample: Sample<Op>,
  graph = graphOf(op, sample),
): Promise<string[]> {
  const expected = await run(reference, graph, sample);
  const actual = await run(backend, graph, sample);
  return actual.flatMap(({ dtype, values }, index) => {
    const wanted = expected[index]!.values;
    const dtypes = [dtype, ...sample.inputs.map((input) => input.dtype)];
    const bar = isFloat(dtype) ? barOf(dtypes, sample.reduction ?? 1) : 0;
    const error = relativeError(values, wanted);
    return error <= bar ? [] : [`${op} ${sample.name}, result ${index}: error ${error}, allowed ${bar}`];
  });
}

describe.each(backends)("$name", ({ backend }) => {
  const cases = opNames.flatMap((op) => samples[op].dtypes.map((dtype) => ({ op, dtype })));
  test.each(cases)("$op in $dtype", async ({ op, dtype }) => {
    const { make } = samples[op] as OpSamples<typeof op>;
    const failures: string[] = [];
    for (const sample of make(dtype)) {
      try {
        failures.push(...(await compare(backend, op, sample)));
      } catch (error) {
        throw new Error(`${op} ${sample.name} in ${dtype} does not run`, { cause: error });
      }
    }
    expect(failures).toEqual([]);
  });

  test.each(Object.keys(accumulatingOutputs) as OpName[])("%s adds to what is there", async (op) => {
    const added = accumulatingOutputs[op]!;
    for (const sample of (samples[op] as OpSamples<typeof op>).make("f32")) {
      const graph = graphOf(op, sample);
      const outputs = graph.outputs.map((output, index): GraphOutput => {
        if (!added.includes(index)) return output;
        const target = leaf(`total${index}`, "state", typeOf(output.value).shape, "f32");
        return { ...output, target, accumulate: true };
      });
      expect(await compare(backend, op, sample, buildGraph(graph.name, outputs))).toEqual([]);
    }
  });
});
