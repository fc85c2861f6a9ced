import { type DType, decode, encode, type TensorData } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";
import { elementCount, formatShape, type Shape } from "../base/shape.ts";
import * as build from "../graph/build.ts";
import type { BinaryOperation, UnaryOperation } from "../graph/expression.ts";
import { apply, dtypeOf, shapeOf, type Value } from "../graph/graph.ts";
import type { Reduction } from "../graph/ops.ts";
import type { Session } from "./session.ts";

/** Numbers, nested as deep as the tensor has dimensions. */
export type NestedNumbers = number | readonly NestedNumbers[];

/** An operand: a tensor, or a number that takes the other operand's dtype. */
export type Operand = Tensor | number;

/**
 * A multi-dimensional array: concrete, or a promise of one that is computed when `data()` asks for it. Inside
 * `compile` and model functions tensors are symbolic: they record what to do. Operations never change a
 * tensor; they give new ones.
 */
export class Tensor {
  readonly session: Session | undefined;
  #value: Value;

  /** Wraps a value of a graph. Tensors from numbers come from `tensor([...])`. */
  constructor(value: Value, session?: Session) {
    this.#value = value;
    this.session = session;
  }

  /** The value in the graph. */
  get value(): Value {
    return this.#value;
  }

  get shape(): Shape {
    return shapeOf(this.#value);
  }

  get dtype(): DType {
    return dtypeOf(this.#value);
  }

  /**
   * The elements, row-major, in the dtype's typed array (16-bit floats as raw bits). Computes the tensor the
   * first time.
   * @throws ShapeError for a symbolic tensor, which has no data.
   */
  async data(): Promise<TensorData> {
    if (this.session === undefined) {
      throw new ShapeError("no_data", "this tensor has no data: it is symbolic", {
        hint: "call data() on what the compiled function returns, not inside of it",
      });
    }
    const present = this.session.dataOf(this.#value);
    if (present !== undefined) return present;
    const [data] = await this.session.compute([this.#value]);
    this.#value = this.session.hold(data!, this.shape as number[], this.dtype);
    return data!;
  }

  /** The elements as plain numbers. */
  async numbers(): Promise<number[]> {
    return Array.from(decode(this.dtype, await this.data()));
  }

  /** The one element of a tensor. @throws ShapeError where there is not exactly one. */
  async item(): Promise<number> {
    const numbers = await this.numbers();
    if (numbers.length !== 1) {
      throw new ShapeError("not_one_element", "item() reads tensors of one element", {
        received: formatShape(this.shape),
      });
    }
    return numbers[0]!;
  }

  /** Nested arrays of the tensor's shape. */
  async nested(): Promise<NestedNumbers> {
    const numbers = await this.numbers();
    const shape = this.shape as number[];
    const take = (axis: number, offset: number): NestedNumbers => {
      if (axis === shape.length) return numbers[offset]!;
      const stride = elementCount(shape.slice(axis + 1));
      return Array.from({ length: shape[axis]! }, (_, index) => take(axis + 1, offset + index * stride));
    };
    return take(0, 0);
  }

  /** this + other, broadcasting. */
  add(other: Operand): Tensor {
    return this.#binary("add", other);
  }
  /** this - other */
  subtract(other: Operand): Tensor {
    return this.#binary("subtract", other);
  }
  /** this * other, element by element. */
  multiply(other: Operand): Tensor {
    return this.#binary("multiply", other);
  }
  /** this / other */
  divide(other: Operand): Tensor {
    return this.#binary("divide", other);
  }
  /** this to the power of other. */
  power(other: Operand): Tensor {
    return this.#binary("power", other);
  }
  /** The larger of the two. */
  maximum(other: Operand): Tensor {
    return this.#binary("maximum", other);
  }
  /** The smaller of the two. */
  minimum(other: Operand): Tensor {
    return this.#binary("minimum", other);
  }
  /** 1 where this < other, else 0. */
  less(other: Operand): Tensor {
    return this.#binary("less", other);
  }
  /** 1 where equal, else 0. */
  equal(other: Operand): Tensor {
    return this.#binary("equal", other);
  }

  negate(): Tensor {
    return this.#unary("negate");
  }
  absolute(): Tensor {
    return this.#unary("absolute");
  }
  exp(): Tensor {
    return this.#unary("exp");
  }
  log(): Tensor {
    return this.#unary("log");
  }
  sqrt(): Tensor {
    return this.#unary("sqrt");
  }
  tanh(): Tensor {
    return this.#unary("tanh");
  }
  sigmoid(): Tensor {
    return this.#unary("sigmoid");
  }
  relu(): Tensor {
    return this.#unary("relu");
  }
  silu(): Tensor {
    return this.#unary("silu");
  }
  /** x Phi(x), with the error function (Hendrycks and Gimpel, arXiv 1606.08415). */
  gelu(): Tensor {
    return this.#unary("gelu");
  }
  /** The tanh approximation of gelu. */
  geluTanh(): Tensor {
    return this.#unary("gelu_tanh");
  }
  sin(): Tensor {
    return this.#unary("sin");
  }
  cos(): Tensor {
    return this.#unary("cos");
  }

  /** `chosen` where this is not zero, `other` elsewhere. */
  where(chosen: Operand, other: Operand): Tensor {
    const [a, b] = [this.#operand(chosen), this.#operand(other)];
    return this.#derive(build.elementwise("select", this.#value, a, b), chosen, other);
  }

  /** Sum over axes (all by default). */
  sum(axes?: number | readonly number[], keep = false): Tensor {
    return this.#reduce("sum", axes, keep);
  }
  /** Largest over axes. */
  max(axes?: number | readonly number[], keep = false): Tensor {
    return this.#reduce("maximum", axes, keep);
  }
  /** Smallest over axes. */
  min(axes?: number | readonly number[], keep = false): Tensor {
    return this.#reduce("minimum", axes, keep);
  }
  /** Mean over axes of fixed size. */
  mean(axes?: number | readonly number[], keep = false): Tensor {
    const list = this.#axes(axes);
    const sizes = list.map((axis) => this.shape[axis]!);
    if (!sizes.every((size) => typeof size === "number")) {
      throw new ShapeError("symbolic_mean", "a mean over a symbolic dimension has no fixed divisor", {
        received: formatShape(this.shape),
        hint: "take the sum and divide by the count of this run",
      });
    }
    return this.sum(list, keep).multiply(1 / elementCount(sizes as number[]));
  }
  /** Index of the largest along the last axis. */
  argmax(): Tensor {
    return this.#derive(apply("argmax", [this.#value], {}));
  }
  /** exp(x) normalised over the last axis. */
  softmax(): Tensor {
    return this.#derive(apply("softmax", [this.#value], {}));
  }

  /** Matrix product over the last two axes; a two-dimensional `other` serves all leading axes. */
  matmul(other: Tensor, options: { transposeThis?: boolean; transposeOther?: boolean } = {}): Tensor {
    const { transposeThis = false, transposeOther = false } = options;
    const product = build.matmul(this.#value, other.value, {
      transposeA: transposeThis,
      transposeB: transposeOther,
    });
    return this.#derive(product, other);
  }

  /** The elements in another shape; one size may be -1 where all are fixed. */
  reshape(shape: Shape): Tensor {
    const unknown = shape.indexOf(-1);
    if (unknown < 0) return this.#derive(build.reshape(this.#value, shape));
    const rest = shape.filter((_, axis) => axis !== unknown) as number[];
    const size = elementCount(this.shape as number[]) / elementCount(rest);
    return this.#derive(build.reshape(this.#value, shape.with(unknown, size)));
  }
  /** Axes in another order; without one, the last two swapped. */
  transpose(permutation?: readonly number[]): Tensor {
    const rank = this.shape.length;
    const order = permutation ?? [...Array(Math.max(0, rank - 2)).keys(), rank - 1, rank - 2];
    return this.#derive(build.transpose(this.#value, order));
  }
  /** Stretched to a shape. */
  broadcast(shape: Shape): Tensor {
    return this.#derive(build.broadcast(this.#value, shape));
  }
  /** `sizes` elements from `starts` on, an entry an axis. */
  slice(starts: readonly number[], sizes: Shape): Tensor {
    return this.#derive(apply("slice", [this.#value], { starts, sizes }));
  }
  /** Rows of the first axis by index (i32). */
  gather(ids: Tensor): Tensor {
    return this.#derive(apply("gather", [this.#value, ids.value], {}), ids);
  }
  /** The values in another dtype. */
  cast(dtype: DType): Tensor {
    return this.#derive(build.cast(this.#value, dtype));
  }

  #binary(operation: BinaryOperation, other: Operand): Tensor {
    return this.#derive(
      build.binary(operation, this.#value, typeof other === "number" ? other : other.value),
      other,
    );
  }

  #unary(operation: UnaryOperation): Tensor {
    return this.#derive(build.unary(operation, this.#value));
  }

  #reduce(reduction: Reduction, axes: number | readonly number[] | undefined, keep: boolean): Tensor {
    return this.#derive(build.reduce(reduction, this.#value, this.#axes(axes), keep));
  }

  #axes(axes: number | readonly number[] | undefined): number[] {
    const rank = this.shape.length;
    const list = axes === undefined ? [...Array(rank).keys()] : typeof axes === "number" ? [axes] : [...axes];
    return list.map((axis) => (axis < 0 ? axis + rank : axis));
  }

  #operand(operand: Operand): Value {
    return typeof operand === "number" ? build.scalar(operand) : operand.value;
  }

  #derive(value: Value, ...others: readonly Operand[]): Tensor {
    return derive(value, this, ...others);
  }
}

/** A tensor computed from others: it belongs to their session. */
export function derive(value: Value, ...operands: readonly Operand[]): Tensor {
  let session: Session | undefined;
  for (const operand of operands) {
    if (typeof operand === "number" || operand.session === undefined) continue;
    if (session !== undefined && session !== operand.session) {
      throw new ShapeError("mixed_sessions", "tensors of different backends do not mix", {
        hint: "make both with the same tensor() function",
      });
    }
    session = operand.session;
  }
  return new Tensor(value, session);
}

/** The shape of nested numbers. @throws ShapeError where rows differ in length. */
export function shapeOfNested(values: NestedNumbers): number[] {
  if (typeof values === "number") return [];
  const inner = values.length === 0 ? [] : shapeOfNested(values[0]!);
  for (const row of values) {
    const shape = shapeOfNested(row);
    if (shape.join() !== inner.join()) {
      throw new ShapeError("ragged", "nested arrays must have rows of equal length", {
        expected: `rows of shape [${inner.join(", ")}]`,
        received: `[${shape.join(", ")}]`,
      });
    }
  }
  return [values.length, ...inner];
}

/** A concrete tensor of a session from nested numbers or typed data. */
export function makeTensor(
  session: Session,
  values: NestedNumbers | TensorData,
  options: { dtype?: DType; shape?: readonly number[] } = {},
): Tensor {
  if (ArrayBuffer.isView(values)) {
    const data = values as TensorData;
    const dtype = options.dtype ?? dtypeOfData(data);
    return new Tensor(session.hold(data, options.shape ?? [data.length], dtype), session);
  }
  const shape = options.shape ?? shapeOfNested(values);
  const dtype = options.dtype ?? "f32";
  return new Tensor(session.hold(encode(dtype, flatten(values)), shape, dtype), session);
}

function flatten(values: NestedNumbers): number[] {
  return typeof values === "number" ? [values] : values.flatMap(flatten);
}

function dtypeOfData(data: TensorData): DType {
  if (data instanceof Float32Array) return "f32";
  if (data instanceof Float64Array) return "f64";
  if (data instanceof Int32Array) return "i32";
  if (data instanceof Uint8Array) return "u8";
  if (data instanceof Int8Array) return "i8";
  throw new ShapeError("ambiguous_dtype", "16-bit data may be bf16 or f16", {
    hint: 'pass { dtype: "bf16" }',
  });
}
