import type { DType } from "../base/dtype.ts";
import { withScope } from "../graph/scope.ts";
import { embedding, layerNorm, linear, linearTransposed, rmsNorm, swiglu } from "../tensor/functions.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Initializer, ParameterSpace } from "./parameters.ts";

const zeros: Initializer = { kind: "constant", value: 0 };
const ones: Initializer = { kind: "constant", value: 1 };

/** x W^T + b: `[.., inputs]` to `[.., outputs]`, weight `[outputs, inputs]`. */
export class Linear {
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
  readonly #name: string;

  constructor(
    space: ParameterSpace,
    options: { inputs: number; outputs: number; bias?: boolean; deviation?: number },
  ) {
    const { inputs, outputs, bias = false, deviation = 0.02 } = options;
    this.#name = space.name;
    this.weight = space.parameter("weight", [outputs, inputs], { kind: "normal", deviation });
    this.bias = bias ? space.parameter("bias", [outputs], zeros) : undefined;
  }

  forward(x: Tensor): Tensor {
    return withScope(lastPart(this.#name), () => linear(x, this.weight, this.bias));
  }
}

/** The same product with the weight stored `[inputs, outputs]`, as GPT-2 keeps it ("Conv1D"). */
export class LinearTransposed {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly #name: string;

  constructor(space: ParameterSpace, options: { inputs: number; outputs: number; deviation?: number }) {
    const { inputs, outputs, deviation = 0.02 } = options;
    this.#name = space.name;
    this.weight = space.parameter("weight", [inputs, outputs], { kind: "normal", deviation });
    this.bias = space.parameter("bias", [outputs], zeros);
  }

  forward(x: Tensor): Tensor {
    return withScope(lastPart(this.#name), () => linearTransposed(x, this.weight, this.bias));
  }
}

/** Rows of a table by id: i32 `[..]` to `[.., size]`. */
export class Embedding {
  readonly weight: Tensor;

  constructor(space: ParameterSpace, options: { count: number; size: number; deviation?: number }) {
    const { count, size, deviation = 0.02 } = options;
    this.weight = space.parameter("weight", [count, size], { kind: "normal", deviation });
  }

  /** @param dtype in which the model computes. */
  forward(ids: Tensor, dtype: DType): Tensor {
    return embedding(this.weight, ids, dtype);
  }
}

/** Root-mean-square normalisation over the last axis. */
export class RmsNorm {
  readonly weight: Tensor;
  readonly #epsilon: number;
  readonly #name: string;

  constructor(space: ParameterSpace, options: { size: number; epsilon: number }) {
    this.#name = space.name;
    this.weight = space.parameter("weight", [options.size], ones);
    this.#epsilon = options.epsilon;
  }

  forward(x: Tensor): Tensor {
    return withScope(lastPart(this.#name), () => rmsNorm(x, this.weight, this.#epsilon));
  }
}

/** Layer normalisation over the last axis. */
export class LayerNorm {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly #epsilon: number;
  readonly #name: string;

  constructor(space: ParameterSpace, options: { size: number; epsilon: number }) {
    this.#name = space.name;
    this.weight = space.parameter("weight", [options.size], ones);
    this.bias = space.parameter("bias", [options.size], zeros);
    this.#epsilon = options.epsilon;
  }

  forward(x: Tensor): Tensor {
    return withScope(lastPart(this.#name), () => layerNorm(x, this.weight, this.bias, this.#epsilon));
  }
}

/** silu(gate(x)) * up(x), then down (Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202). */
export class GatedMlp {
  readonly #gate: Linear;
  readonly #up: Linear;
  readonly #down: Linear;

  constructor(space: ParameterSpace, options: { size: number; intermediate: number; deviation?: number }) {
    const { size, intermediate, deviation = 0.02 } = options;
    this.#gate = new Linear(space.child("gate_proj"), { inputs: size, outputs: intermediate, deviation });
    this.#up = new Linear(space.child("up_proj"), { inputs: size, outputs: intermediate, deviation });
    this.#down = new Linear(space.child("down_proj"), { inputs: intermediate, outputs: size, deviation });
  }

  forward(x: Tensor): Tensor {
    return this.#down.forward(swiglu(this.#gate.forward(x), this.#up.forward(x)));
  }
}

/** The last part of a dotted name: scopes nest, so each adds only its own. */
export function lastPart(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}
