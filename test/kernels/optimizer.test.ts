import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  bytesOf,
  copyOf,
  randomTensor,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  zeros,
} from "./support.ts";

/** One optimizer: its kernel, hyperparameters of a step in float32, and the update in float64. */
interface Optimizer {
  readonly name: string;
  readonly kernel: string;
  readonly states: number;
  readonly hyper: (step: number) => number[];
  /** Updates [parameter, ...states] by a gradient. */
  readonly update: (values: number[], gradient: number, step: number) => void;
}

const scale = 0.5;

function adam(
  name: string,
  kernel: string,
  rate: number,
  beta1: number,
  beta2: number,
  epsilon: number,
  decay: number,
) {
  const corrections = (step: number) => [1 - beta1 ** step, 1 - beta2 ** step] as const;
  const optimizer: Optimizer = {
    name,
    kernel,
    states: 2,
    hyper: (step) => [rate, beta1, beta2, epsilon, decay, ...corrections(step), scale],
    update(values, gradient, step) {
      let [p, m, v] = values as [number, number, number];
      if (kernel === "adamw") p *= 1 - rate * decay;
      else gradient += decay * p;
      m = beta1 * m + (1 - beta1) * gradient;
      v = beta2 * v + (1 - beta2) * gradient ** 2;
      const [first, second] = corrections(step);
      p -= (rate / first) * (m / (Math.sqrt(v) / Math.sqrt(second) + epsilon));
      values.splice(0, 3, p, m, v);
    },
  };
  return optimizer;
}

function sgd(momentum: number, dampening: number, nesterov: boolean): Optimizer {
  const [rate, decay] = [0.0078125, 0.02];
  return {
    name: `sgd, momentum ${momentum}, dampening ${dampening}, Nesterov ${nesterov}`,
    kernel: "sgd",
    states: 1,
    hyper: (step) => [rate, momentum, step === 1 ? 0 : dampening, decay, nesterov ? 1 : 0, scale],
    update(values, gradient, step) {
      const g = gradient + decay * values[0]!;
      values[1] = momentum * values[1]! + (step === 1 ? 1 : 1 - dampening) * g;
      values[0] = values[0]! - rate * (nesterov ? g + momentum * values[1] : values[1]);
    },
  };
}

const optimizers: Optimizer[] = [
  adam("adamw", "adamw", 0.00390625, 0.9, 0.95, 1e-8, 0.125),
  adam("adamw with the usual betas", "adamw", 0.001, 0.9, 0.999, 1e-8, 0),
  adam("adam with L2", "adam", 0.001, 0.9, 0.999, 1e-6, 0.05),
  sgd(0, 0, false),
  sgd(0.9, 0, false),
  sgd(0.9, 0.1, false),
  sgd(0.9, 0, true),
  {
    name: "lion",
    kernel: "lion",
    states: 1,
    hyper: () => [0.0009765625, 0.9, 0.99, 0.125, scale],
    update(values, gradient) {
      const blend = 0.9 * values[1]! + 0.1 * gradient;
      values[0] = values[0]! * (1 - 0.0009765625 * 0.125) - 0.0009765625 * Math.sign(blend);
      values[1] = 0.99 * values[1]! + 0.01 * gradient;
    },
  },
  {
    name: "adagrad",
    kernel: "adagrad",
    states: 1,
    hyper: () => [0.05, 1e-10, 0.01, scale],
    update(values, gradient) {
      const g = gradient + 0.01 * values[0]!;
      values[1] = values[1]! + g * g;
      values[0] = values[0]! - (0.05 * g) / (Math.sqrt(values[1]) + 1e-10);
    },
  },
];

const gradientOf = (dtype: "f32" | "bf16", size: number, step: number): TestTensor =>
  randomTensor(dtype, [size], 1000 + step, 3);

describe("optimizers: 100 steps against float64", () => {
  for (const optimizer of optimizers) {
    for (const dtype of ["f32", "bf16"] as const) {
      test(`${optimizer.name}, ${dtype} gradients`, () => {
        for (const size of [1, 7, 65, 1000]) {
          const initial = randomTensor("f32", [size], 5);
          const gradients = Array.from({ length: 100 }, (_, step) => gradientOf(dtype, size, step));
          const exact = Array.from(valuesOf(initial), (value) => [
            value,
            ...new Array<number>(optimizer.states).fill(0),
          ]);
          for (let step = 1; step <= 100; step++) {
            const gradient = valuesOf(gradients[step - 1]!);
            exact.forEach((values, i) => {
              optimizer.update(values, gradient[i]! * scale, step);
            });
          }
          for (const isa of runnableIsas()) {
            const buffers = [copyOf(initial), ...exact[0]!.slice(1).map(() => zeros("f32", [size]))];
            for (let step = 1; step <= 100; step++) {
              const hyper = optimizer.hyper(step);
              const inputs = [
                buffers[0]!,
                gradients[step - 1]!,
                ...buffers.slice(1),
                tensorOf("f32", [hyper.length], hyper),
              ];
              runKernel(optimizer.kernel, isa, inputs, buffers, [], 2);
            }
            buffers.forEach((buffer, k) => {
              const values = valuesOf(buffer);
              // A state may be near zero as a sum of gradients (of about 1.5) of both signs.
              const least = k === 0 ? 0 : 1.5;
              const largest = exact.reduce((most, own) => Math.max(most, Math.abs(own[k]!)), least);
              const worst = values.reduce(
                (most, value, i) => Math.max(most, Math.abs(value - exact[i]![k]!)),
                0,
              );
              const label = `${optimizer.name} on ${isa}: buffer ${k} of ${size}`;
              expect(worst / largest, label).toBeLessThanOrEqual(1e-6);
            });
          }
        }
      });
    }

    test(`${optimizer.name}: threads change no bit`, () => {
      const size = 20001;
      for (const isa of runnableIsas()) {
        const run = (threads: number) => {
          const buffers = Array.from({ length: 1 + optimizer.states }, (_, k) => {
            const x = randomTensor("f32", [size], k + 1);
            return tensorOf("f32", [size], valuesOf(x).map(Math.abs));
          });
          const hyper = optimizer.hyper(2);
          const states = buffers.slice(1);
          const inputs = [
            buffers[0]!,
            randomTensor("f32", [size], 9),
            ...states,
            tensorOf("f32", [hyper.length], hyper),
          ];
          runKernel(optimizer.kernel, isa, inputs, buffers, [], threads);
          return buffers.map((buffer) => bytesOf(buffer));
        };
        const one = run(1);
        for (const threads of [2, 3]) {
          run(threads).forEach((bytes, k) => {
            expect(Buffer.compare(bytes, one[k]!)).toBe(0);
          });
        }
      }
    });
  }
});

describe("sum_of_squares", () => {
  test("against float64, any float dtype, the same bits on any number of threads", () => {
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      for (const size of [0, 1, 2, 3, 7, 17, 63, 65, 1000, 4099, 100_003]) {
        const x = randomTensor(dtype, [size], size);
        const expected = valuesOf(x).reduce((sum, value) => sum + value * value, 0);
        for (const isa of runnableIsas()) {
          const results = [1, 2, 3].map((threads) => {
            const y = zeros("f32", [1]);
            runKernel("sum_of_squares", isa, [x], [y], [], threads);
            return valuesOf(y)[0]!;
          });
          expect(Math.abs(results[0]! - expected)).toBeLessThanOrEqual(1e-7 * expected);
          expect(new Set(results).size).toBe(1);
        }
      }
    }
  });

  test("squares beyond float32 and below it count; what is not finite shows", () => {
    const sum = (values: number[]) => {
      const results = runnableIsas().map((isa) => {
        const y = zeros("f32", [1]);
        runKernel("sum_of_squares", isa, [tensorOf("f32", [values.length], values)], [y]);
        return valuesOf(y)[0]!;
      });
      expect(new Set(results).size).toBe(1);
      return results[0]!;
    };
    expect(sum(new Array<number>(1000).fill(1e-20))).toBeCloseTo(1e-37, 42);
    expect(sum([1e18, 1])).toBe(Math.fround(Math.fround(1e18) ** 2));
    expect(sum([3e38, 1])).toBe(Infinity);
    expect(sum([1, Infinity, 2])).toBe(Infinity);
    expect(sum([1, Number.NaN, 2])).toBeNaN();
  });
});

/** Tensors of a float32 safetensors file. */
function readGolden(path: string): Map<string, Float32Array> {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<
    string,
    { data_offsets: number[] }
  >;
  return new Map(
    Object.entries(header).map(([name, { data_offsets: offsets }]) => {
      const own = bytes.subarray(8 + length + offsets[0]!, 8 + length + offsets[1]!);
      return [name, new Float32Array(new Uint8Array(own).buffer)];
    }),
  );
}

const golden = join(import.meta.dirname, "../golden/optimizers");

describe.skipIf(!existsSync(`${golden}.json`))("optimizers against PyTorch's trajectories", () => {
  const index = JSON.parse(readFileSync(`${golden}.json`, "utf8")) as {
    parameters: string[];
    steps: number;
    kept_steps: number[];
    cases: Record<string, { optimizer: string; arguments: Record<string, number & number[] & boolean> }>;
  };
  const tensors = readGolden(`${golden}.safetensors`);

  for (const [name, { optimizer, arguments: given }] of Object.entries(index.cases)) {
    test(name, () => {
      const kernel = optimizer.toLowerCase();
      const decay = given.weight_decay ?? 0;
      const hyperAt = (step: number): number[] => {
        const [beta1 = 0, beta2 = 0] = given.betas ?? [];
        const corrections = [1 - beta1 ** step, 1 - beta2 ** step];
        if (kernel === "lion") return [given.lr!, beta1, beta2, decay, 1];
        if (kernel === "adagrad")
          return [given.lr! / (1 + (step - 1) * given.lr_decay!), given.eps!, decay, 1];
        if (kernel === "sgd") {
          return [
            given.lr!,
            given.momentum ?? 0,
            step > 1 ? (given.dampening ?? 0) : 0,
            decay,
            given.nesterov ? 1 : 0,
            1,
          ];
        }
        return [given.lr!, beta1, beta2, given.eps!, decay, ...corrections, 1];
      };
      for (const isa of runnableIsas()) {
        for (const parameter of index.parameters) {
          const initial = tensors.get(`initial.${parameter}`)!;
          const size = initial.length;
          const start = given.initial_accumulator_value ?? 0;
          const stateCount = kernel.startsWith("adam") ? 2 : 1;
          const buffers = [initial, ...new Array(stateCount).fill(new Float32Array(size).fill(start))].map(
            (values) => tensorOf("f32", [size], values),
          );
          for (let step = 1; step <= index.steps; step++) {
            const gradient = tensors.get(`gradients.${parameter}`)!.subarray((step - 1) * size, step * size);
            const hyper = hyperAt(step);
            const inputs = [
              buffers[0]!,
              tensorOf("f32", [size], gradient),
              ...buffers.slice(1),
              tensorOf("f32", [hyper.length], hyper),
            ];
            runKernel(kernel, isa, inputs, buffers, [], 1);
            if (!index.kept_steps.includes(step)) continue;
            const expected = tensors.get(`${name}.${step}.${parameter}`)!;
            const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
            const worst = valuesOf(buffers[0]!).reduce(
              (most, value, i) => Math.max(most, Math.abs(value - expected[i]!)),
              0,
            );
            expect(worst / largest, `${name}.${step}.${parameter} on ${isa}`).toBeLessThanOrEqual(1e-6);
          }
        }
      }
    });
  }
});
