import { readFileSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { decode } from "../../src/base/dtype.ts";
import { openSafetensors, type TensorReader } from "../../src/checkpoint/safetensors_reader.ts";
import { type ReferenceTensor, referenceRules } from "../../src/graph/rules/reference.ts";

/** The reference semantics against PyTorch's results in float64 (test/golden/make_*.py). */
const folder = new URL("../golden/", import.meta.url);
/** The files store float32: half a unit in its last place. */
const bar = 2 ** -24;
const readJson = (name: string): unknown => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

interface AttentionCase {
  readonly lengths: readonly number[];
  readonly window: number | null;
  readonly scale: number;
}

interface OptimizerCase {
  readonly optimizer: string;
  readonly arguments: {
    readonly lr: number;
    readonly betas?: readonly [number, number];
    readonly eps?: number;
    readonly weight_decay?: number;
    readonly momentum?: number;
    readonly nesterov?: boolean;
    readonly lr_decay?: number;
    readonly initial_accumulator_value?: number;
  };
}

const { cases: attentionCases } = readJson("attention.json") as { cases: Record<string, AttentionCase> };
const { cases: optimizerCases } = readJson("optimizers.json") as { cases: Record<string, OptimizerCase> };
const attentionFile = await openSafetensors(new URL("attention.safetensors", folder).pathname);
const optimizerFile = await openSafetensors(new URL("optimizers.safetensors", folder).pathname);

afterAll(async () => {
  await attentionFile.close();
  await optimizerFile.close();
});

async function read(file: TensorReader, name: string): Promise<ReferenceTensor> {
  const { dtype, shape } = file.info(name);
  return { shape, values: decode(dtype, await file.read(name)) };
}

/** The largest difference, relative to the largest value. */
function difference(actual: Float64Array, expected: ReferenceTensor): number {
  let error = 0;
  let largest = 0;
  expect(actual.length).toBe(expected.values.length);
  expected.values.forEach((value, index) => {
    error = Math.max(error, Math.abs(value - actual[index]!));
    largest = Math.max(largest, Math.abs(value));
  });
  return error / largest;
}

test.each(Object.entries(attentionCases))("attention and its gradient: %s", async (name, golden) => {
  const tensors = await Promise.all(
    ["q", "k", "v", "output", "output_gradient"].map((part) => read(attentionFile, `${name}.${part}`)),
  );
  const [q, k, v, output, outputGradient] = tensors as [
    ReferenceTensor,
    ReferenceTensor,
    ReferenceTensor,
    ReferenceTensor,
    ReferenceTensor,
  ];
  const starts = [0];
  for (const length of golden.lengths) starts.push(starts.at(-1)! + length);
  const offsets = { shape: [starts.length], values: Float64Array.from(starts) };
  const attributes = { scale: golden.scale, causal: true, window: golden.window ?? 0 };
  const statistics = [q.shape[1]!, q.shape[0]!];
  const [out, logsumexp] = referenceRules.attention([q, k, v, offsets], attributes, [q.shape, statistics]);
  expect(difference(out!, output)).toBeLessThanOrEqual(bar);
  const results = referenceRules.attention_gradient(
    [
      outputGradient,
      q,
      k,
      v,
      { shape: q.shape, values: out! },
      { shape: statistics, values: logsumexp! },
      offsets,
    ],
    attributes,
    [q.shape, k.shape, v.shape],
  );
  for (const [index, part] of ["q", "k", "v"].entries()) {
    const expected = await read(attentionFile, `${name}.${part}_gradient`);
    // The gradient of q and k vanishes where each token sees but itself.
    if (expected.values.every((value) => Math.abs(value) < 1e-12)) {
      expect(results[index]!.every((value) => Math.abs(value) < 1e-12)).toBe(true);
    } else {
      expect(difference(results[index]!, expected)).toBeLessThanOrEqual(bar);
    }
  }
});

/** One step of an op on a parameter and its states, which it replaces. */
type Update = (step: number, buffers: Float64Array[], gradient: Float64Array) => Float64Array[];

function updateOf({ optimizer, arguments: args }: OptimizerCase): { states: number; update: Update } {
  const [beta1, beta2] = args.betas ?? [0, 0];
  const decay = args.weight_decay ?? 0;
  const apply =
    (op: "adamw" | "adam" | "sgd" | "lion" | "adagrad", hyper: readonly number[]) =>
    (buffers: readonly Float64Array[], gradient: Float64Array): Float64Array[] => {
      const all = [buffers[0]!, gradient, ...buffers.slice(1), Float64Array.from(hyper)];
      const shapes = buffers.map((buffer) => [buffer.length]);
      return referenceRules[op](
        all.map((values) => ({ shape: [values.length], values })),
        {},
        shapes,
      );
    };
  const adam =
    (op: "adamw" | "adam"): Update =>
    (step, buffers, gradient) =>
      apply(op, [args.lr, beta1, beta2, args.eps!, decay, 1 - beta1 ** step, 1 - beta2 ** step, 1])(
        buffers,
        gradient,
      );
  switch (optimizer) {
    case "AdamW":
      return { states: 2, update: adam("adamw") };
    case "Adam":
      return { states: 2, update: adam("adam") };
    case "SGD": {
      const hyper = [args.lr, args.momentum ?? 0, 0, decay, Number(args.nesterov ?? false), 1];
      return { states: 1, update: (_step, buffers, gradient) => apply("sgd", hyper)(buffers, gradient) };
    }
    case "Lion": {
      const hyper = [args.lr, beta1, beta2, decay, 1];
      return { states: 1, update: (_step, buffers, gradient) => apply("lion", hyper)(buffers, gradient) };
    }
    case "Adagrad":
      return {
        states: 1,
        update: (step, buffers, gradient) => {
          const rate = args.lr / (1 + (step - 1) * (args.lr_decay ?? 0));
          return apply("adagrad", [rate, args.eps!, decay, 1])(buffers, gradient);
        },
      };
    default:
      throw new Error(`no update for ${optimizer}`);
  }
}

test.each(Object.entries(optimizerCases))("100 steps of the optimizer: %s", async (name, golden) => {
  for (const parameter of ["vector", "matrix"]) {
    const { values: initial } = await read(optimizerFile, `initial.${parameter}`);
    const { values: gradients } = await read(optimizerFile, `gradients.${parameter}`);
    const { states, update } = updateOf(golden);
    const filled = golden.arguments.initial_accumulator_value ?? 0;
    let buffers = [
      initial,
      ...Array.from({ length: states }, () => new Float64Array(initial.length).fill(filled)),
    ];
    for (let step = 1; step <= 100; step++) {
      const gradient = gradients.slice((step - 1) * initial.length, step * initial.length);
      buffers = update(step, buffers, gradient);
      if (!optimizerFile.has(`${name}.${step}.${parameter}`)) continue;
      const expected = await read(optimizerFile, `${name}.${step}.${parameter}`);
      expect(difference(buffers[0]!, expected), `${parameter} after step ${step}`).toBeLessThanOrEqual(bar);
    }
  }
});
