import type { ReferenceRule, ReferenceTensor } from "../reference.ts";

/** The hyperparameters by name, in the order of docs/kernels.md. */
function readHyper<Name extends string>(
  hyper: ReferenceTensor,
  names: readonly Name[],
): Record<Name, number> {
  const entries = names.map((name, position) => [name, hyper.values[position]!] as const);
  return Object.fromEntries(entries) as Record<Name, number>;
}

/** Adam (Kingma and Ba, 2015); decoupled: AdamW (Loshchilov and Hutter, 2019). */
function adam(decoupled: boolean): ReferenceRule<"adam" | "adamw"> {
  return ([parameter, gradient, first, second, hyper]) => {
    const { rate, beta1, beta2, epsilon, decay, correction1, correction2, scale } = readHyper(hyper!, [
      "rate",
      "beta1",
      "beta2",
      "epsilon",
      "decay",
      "correction1",
      "correction2",
      "scale",
    ]);
    const p = parameter!.values.slice();
    const m = first!.values.slice();
    const v = second!.values.slice();
    for (let i = 0; i < p.length; i++) {
      let g = gradient!.values[i]! * scale;
      if (decoupled) p[i]! -= rate * decay * p[i]!;
      else g += decay * p[i]!;
      m[i] = beta1 * m[i]! + (1 - beta1) * g;
      v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
      p[i]! -= (rate * (m[i]! / correction1)) / (Math.sqrt(v[i]! / correction2) + epsilon);
    }
    return [p, m, v];
  };
}

/** Meaning of the optimizer updates, in the forms of PyTorch's optimizers of the same names. */
export const optimizerReferences: {
  readonly [Op in "adamw" | "adam" | "sgd" | "lion" | "adagrad" | "sum_of_squares"]: ReferenceRule<Op>;
} = {
  adamw: adam(true),
  adam: adam(false),
  sgd: ([parameter, gradient, momentum, hyper]) => {
    const { rate, factor, dampening, decay, nesterov, scale } = readHyper(hyper!, [
      "rate",
      "factor",
      "dampening",
      "decay",
      "nesterov",
      "scale",
    ]);
    const p = parameter!.values.slice();
    const buffer = momentum!.values.slice();
    for (let i = 0; i < p.length; i++) {
      const g = gradient!.values[i]! * scale + decay * p[i]!;
      buffer[i] = factor * buffer[i]! + (1 - dampening) * g;
      p[i]! -= rate * (nesterov !== 0 ? g + factor * buffer[i]! : buffer[i]!);
    }
    return [p, buffer];
  },
  // Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2.
  lion: ([parameter, gradient, first, hyper]) => {
    const { rate, beta1, beta2, decay, scale } = readHyper(hyper!, [
      "rate",
      "beta1",
      "beta2",
      "decay",
      "scale",
    ]);
    const p = parameter!.values.slice();
    const m = first!.values.slice();
    for (let i = 0; i < p.length; i++) {
      const g = gradient!.values[i]! * scale;
      p[i]! -= rate * (Math.sign(beta1 * m[i]! + (1 - beta1) * g) + decay * p[i]!);
      m[i] = beta2 * m[i]! + (1 - beta2) * g;
    }
    return [p, m];
  },
  adagrad: ([parameter, gradient, sum, hyper]) => {
    const { rate, epsilon, decay, scale } = readHyper(hyper!, ["rate", "epsilon", "decay", "scale"]);
    const p = parameter!.values.slice();
    const total = sum!.values.slice();
    for (let i = 0; i < p.length; i++) {
      const g = gradient!.values[i]! * scale + decay * p[i]!;
      total[i]! += g * g;
      p[i]! -= (rate * g) / (Math.sqrt(total[i]!) + epsilon);
    }
    return [p, total];
  },
  sum_of_squares: ([x]) => {
    let sum = 0;
    for (const value of x!.values) sum += value * value;
    return [Float64Array.of(sum)];
  },
};
