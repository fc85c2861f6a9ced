import { describe, expect, test } from "vitest";
import type { DType } from "../../../base/dtype.ts";
import { ShapeError } from "../../../base/errors.ts";
import { type Shape, symbolic } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { OpAttributes, OpName } from "../../ops.ts";
import { inferTypes } from "../shape.ts";

const type = (dtype: DType, ...shape: Shape): TensorType => ({ dtype, shape });
const f32 = (...shape: Shape): TensorType => type("f32", ...shape);
const bf16 = (...shape: Shape): TensorType => type("bf16", ...shape);
const i32 = (...shape: Shape): TensorType => type("i32", ...shape);
const i8 = (...shape: Shape): TensorType => type("i8", ...shape);
const u8 = (...shape: Shape): TensorType => type("u8", ...shape);
const tokens = symbolic("tokens", 64);

/** One op with operands that fit, and what is said when one of them is another. */
interface Case<Op extends OpName> {
  readonly op: Op;
  readonly attributes: OpAttributes[Op];
  readonly fits: readonly TensorType[];
  /** Position of the operand, what stands there instead, and the message. */
  readonly wrong: readonly (readonly [number, TensorType, string])[];
}

/** Keeps the attributes of a case typed by its op. */
const operation = <Op extends OpName>(one: Case<Op>): Case<Op> => one;

const update = (op: "adamw" | "adam" | "sgd" | "lion" | "adagrad", states: number, hyper: number) =>
  operation({
    op,
    attributes: {},
    fits: [f32(10), bf16(10), ...Array.from({ length: states }, () => f32(10)), f32(hyper)],
    wrong: [
      [0, f32(2, 5), "parameter must have 1 dimensions, got [2, 5]"],
      [0, bf16(10), "parameter must be f32, got bf16"],
      [1, i32(10), "gradient must be of a float dtype, got i32"],
      [1, f32(9), "the parameter and its gradient and states must have the same shape: [9] and [10]"],
      [2, bf16(10), "every state must be f32, got bf16"],
      [
        1 + states,
        f32(11),
        "the parameter and its gradient and states must have the same shape: [11] and [10]",
      ],
      [2 + states, f32(hyper - 1), `hyper must be [${hyper}], got [${hyper - 1}]`],
      [2 + states, bf16(hyper), "hyper must be f32, got bf16"],
    ],
  });

const attention = { scale: 1, causal: true, window: 0 };
const [q, kv] = [f32(tokens, 4, 8), f32(tokens, 2, 8)];
const product = { activation: "none", bias: false, residual: false, dtype: "f32" } as const;

const cases = [
  operation({
    op: "pad_into",
    attributes: { starts: [0, 2], shape: [4, 8] },
    fits: [f32(4, 6)],
    wrong: [
      [0, f32(4, 7), "axis 1: 2 + 7 is past the end of [4, 8]"],
      [0, f32(5, 6), "axis 0: 0 + 5 is past the end of [4, 8]"],
      [0, f32(4), "starts and shape must name every axis"],
    ],
  }),
  operation({
    op: "scatter_add",
    attributes: { rows: 9 },
    fits: [f32(3, 2, 5), i32(3, 2)],
    wrong: [
      [0, f32(2, 3, 5), "the leading axes of x and the ids must have the same shape: [2, 3] and [3, 2]"],
      [0, f32(3), "the leading axes of x and the ids must have the same shape: [3] and [3, 2]"],
      [1, f32(3, 2), "ids must be i32, got f32"],
    ],
  }),
  operation({
    op: "matmul_packed",
    attributes: { ...product, columns: 40, elements: "f32" },
    // Two panels of 32 columns, 10 rows of 4 bytes.
    fits: [f32(3, 10), u8(2 * 32 * 10 * 4)],
    wrong: [
      [0, f32(3, 11), "the packed matrix must have 2816 bytes for [11, 40]"],
      [1, u8(2559), "the packed matrix must have 2560 bytes for [10, 40]"],
      [1, f32(640), "the packed matrix must be u8, got f32"],
    ],
  }),
  operation({
    op: "linear_cross_entropy_gradient",
    attributes: {},
    fits: [f32(tokens), bf16(tokens, 8), bf16(50, 8), i32(tokens)],
    wrong: [
      [0, i32(tokens), "the gradient of the losses must be of a float dtype, got i32"],
      [0, f32(64), "the losses and their gradients must have the same shape: [64] and [tokens<=64]"],
      [1, i32(tokens, 8), "hidden must be of a float dtype, got i32"],
      [2, u8(50, 8), "weight must be of a float dtype, got u8"],
      [2, bf16(50, 9), "the sizes of hidden and weight differ: [8] and [9]"],
    ],
  }),
  operation({
    op: "rms_norm",
    attributes: { epsilon: 1e-6 },
    fits: [bf16(tokens, 8), f32(8)],
    wrong: [
      [1, i32(8), "weight must be of a float dtype, got i32"],
      [1, f32(9), "the weight and the last dimension must have the same shape: [9] and [8]"],
    ],
  }),
  operation({
    op: "rms_norm_gradient",
    attributes: {},
    fits: [bf16(tokens, 8), bf16(tokens, 8), f32(8), f32(tokens)],
    wrong: [
      [0, i32(tokens, 8), "the gradient of x must be of a float dtype, got i32"],
      [
        0,
        bf16(8, tokens),
        "x and its gradient must have the same shape: [8, tokens<=64] and [tokens<=64, 8]",
      ],
      [3, f32(64), "inverse_rms must be [tokens<=64], got [64]"],
      [3, bf16(tokens), "inverse_rms must be f32, got bf16"],
    ],
  }),
  operation({
    op: "layer_norm",
    attributes: { epsilon: 1e-6, bias: true },
    fits: [f32(3, 8), f32(8), f32(8)],
    wrong: [
      [2, f32(1), "the bias and the weight must have the same shape: [1] and [8]"],
      [2, i32(8), "bias must be of a float dtype, got i32"],
    ],
  }),
  operation({
    op: "layer_norm_gradient",
    attributes: {},
    fits: [f32(3, 8), f32(3, 8), f32(8), f32(3), f32(3)],
    wrong: [
      [3, f32(3, 1), "mean must be [3], got [3, 1]"],
      [4, f32(8), "inverse_deviation must be [3], got [8]"],
      [4, bf16(3), "inverse_deviation must be f32, got bf16"],
    ],
  }),
  operation({
    op: "rope",
    attributes: { inverse: false, interleaved: false },
    fits: [bf16(tokens, 4, 8), i32(tokens), f32(4)],
    wrong: [
      [0, i32(tokens, 4, 8), "x must be of a float dtype, got i32"],
      [1, i32(64), "the tokens of x and positions differ: [tokens<=64] and [64]"],
      [2, i32(4), "frequencies must be of a float dtype, got i32"],
      [2, f32(5), "5 frequencies rotate 10 of only 8 elements"],
    ],
  }),
  operation({
    op: "softmax_gradient",
    attributes: {},
    fits: [f32(3, 5), f32(3, 5)],
    wrong: [[0, i32(3, 5), "the gradient of y must be of a float dtype, got i32"]],
  }),
  operation({
    op: "cross_entropy",
    attributes: {},
    fits: [f32(3, 5), i32(3)],
    wrong: [
      [0, f32(3, 1, 5), "logits must have 2 dimensions, got [3, 1, 5]"],
      [0, i32(3, 5), "logits must be of a float dtype, got i32"],
      [1, f32(3), "targets must be i32, got f32"],
      [1, i32(3, 5), "targets must have 1 dimensions, got [3, 5]"],
      [1, i32(4), "the rows of logits and targets differ: [3] and [4]"],
    ],
  }),
  operation({
    op: "cross_entropy_gradient",
    attributes: {},
    fits: [f32(3), f32(3, 5), i32(3), f32(3)],
    wrong: [
      [0, f32(5), "the gradient of the losses and the targets must have the same shape: [5] and [3]"],
      [1, f32(15), "logits must have 2 dimensions, got [15]"],
      [2, i32(2), "the rows of logits and targets differ: [3] and [2]"],
      [3, f32(3, 5), "logsumexp must be [3], got [3, 5]"],
    ],
  }),
  operation({
    op: "embedding",
    attributes: { dtype: "bf16" },
    fits: [f32(50, 8), i32(tokens)],
    wrong: [
      [0, i32(50, 8), "weight must be of a float dtype, got i32"],
      [0, f32(50), "weight must have 2 dimensions, got [50]"],
      [1, f32(tokens), "ids must be i32, got f32"],
    ],
  }),
  operation({
    op: "embedding_gradient",
    attributes: { vocabulary: 50 },
    fits: [bf16(tokens, 8), i32(tokens)],
    wrong: [
      [0, i32(tokens, 8), "the gradient of the result must be of a float dtype, got i32"],
      [0, bf16(8, tokens), "the rows and the ids must have the same shape: [8] and [tokens<=64]"],
      [1, f32(tokens), "ids must be i32, got f32"],
    ],
  }),
  operation({
    op: "attention",
    attributes: attention,
    fits: [q, kv, kv, i32(5)],
    wrong: [
      [0, f32(tokens, 3, 8), "3 query heads do not divide among 2 key/value heads"],
      [1, f32(tokens, 2, 4), "k and v must have the same shape: [tokens<=64, 2, 4] and [tokens<=64, 2, 8]"],
      [3, f32(5), "offsets must be i32, got f32"],
      [3, i32(1, 5), "offsets must have 1 dimensions, got [1, 5]"],
    ],
  }),
  operation({
    op: "attention_gradient",
    attributes: attention,
    fits: [q, q, kv, kv, q, f32(4, tokens), i32(5)],
    wrong: [
      [
        0,
        kv,
        "q and the gradient of the result must have the same shape: [tokens<=64, 2, 8] and [tokens<=64, 4, 8]",
      ],
      [4, type("i32", tokens, 4, 8), "the result must be of a float dtype, got i32"],
      [5, f32(tokens, 4), "logsumexp must be [4, tokens<=64], got [tokens<=64, 4]"],
      [5, bf16(4, tokens), "logsumexp must be f32, got bf16"],
      [6, i32(), "offsets must have 1 dimensions, got []"],
    ],
  }),
  operation({
    op: "cache_write",
    attributes: {},
    fits: [bf16(128, 2, 8), bf16(tokens, 2, 8), i32(tokens)],
    wrong: [
      [
        0,
        bf16(128, 2, 4),
        "a slot of the cache and a token's values must have the same shape: [2, 4] and [2, 8]",
      ],
      [0, bf16(), "cache and values must have rows"],
      [1, i32(tokens, 2, 8), "values must be of a float dtype, got i32"],
      [2, i32(tokens, 1), "slots must have 1 dimensions, got [tokens<=64, 1]"],
      [2, i32(64), "the tokens of values and slots differ: [tokens<=64] and [64]"],
    ],
  }),
  operation({
    op: "cache_write_quantized",
    attributes: {},
    fits: [i8(128, 2, 8), f32(128, 2), bf16(tokens, 2, 8), i32(tokens)],
    wrong: [
      [0, bf16(128, 2, 8), "cache must be i8, got bf16"],
      [0, i8(128, 16), "cache must have 3 dimensions, got [128, 16]"],
      [1, f32(128, 8), "scales must be [128, 2], got [128, 8]"],
      [1, bf16(128, 2), "scales must be f32, got bf16"],
      [2, i8(tokens, 2, 8), "values must be of a float dtype, got i8"],
      [
        2,
        f32(tokens, 4, 4),
        "a slot of the cache and a token's values must have the same shape: [2, 8] and [4, 4]",
      ],
      [3, i32(64), "the tokens of values and slots differ: [tokens<=64] and [64]"],
    ],
  }),
  operation({
    op: "paged_attention",
    attributes: { scale: 1, window: 0, blockSize: 16 },
    fits: [q, i8(128, 2, 8), i8(128, 2, 8), i32(4), i32(3), i32(3, 8), f32(128, 2), f32(128, 2)],
    wrong: [
      [1, f32(128, 2, 8), "k must be i8, got f32"],
      [2, bf16(128, 2, 8), "v must be i8, got bf16"],
      [6, f32(128), "k_scales must be [128, 2], got [128]"],
      [7, bf16(128, 2), "v_scales must be f32, got bf16"],
    ],
  }),
  operation({
    op: "cache_copy",
    attributes: { blockSize: 16 },
    fits: [bf16(128, 2, 8), i32(tokens), i32(tokens)],
    wrong: [
      [0, bf16(), "cache must have rows"],
      [1, f32(tokens), "sources must be i32, got f32"],
      [1, i32(tokens, 1), "sources must have 1 dimensions, got [tokens<=64, 1]"],
      [2, i32(64), "the numbers of sources and destinations differ: [tokens<=64] and [64]"],
    ],
  }),
  operation({
    op: "sample",
    attributes: {},
    fits: [
      f32(3, 40),
      f32(3, 8),
      i32(3, 4),
      i32(4),
      i32(tokens),
      i32(tokens),
      i32(4),
      i32(5),
      f32(5),
      i32(2, 2),
      i32(3),
    ],
    wrong: [
      [0, bf16(3, 40), "logits must be f32, got bf16"],
      [0, f32(3, tokens), "the vocabulary must have a fixed size of at least 1"],
      [1, f32(3, 7), "parameters must have 8 columns, got [3, 7]"],
      [1, f32(2, 8), "the rows of the logits and parameters differ: [2] and [3]"],
      [2, f32(3, 4), "seeds must be i32, got f32"],
      [2, i32(3, 2), "seeds must have 4 columns, got [3, 2]"],
      [3, i32(3), "history_offsets must have 4 entries for 3 rows, got 3"],
      [4, f32(tokens), "history_ids must be i32, got f32"],
      [5, i32(5), "history_ids and their values must have the same shape: [tokens<=64] and [5]"],
      [6, i32(5), "bias_offsets must have 4 entries for 3 rows, got 5"],
      [8, i32(5), "bias_values must be f32, got i32"],
      [9, i32(2, 3), "masks must have 2 columns, got [2, 3]"],
      [9, u8(2, 2), "masks must be i32, got u8"],
      [10, i32(2), "the rows of the logits and mask_rows differ: [2] and [3]"],
    ],
  }),
  operation({
    op: "paged_attention",
    attributes: { scale: 1, window: 0, blockSize: 16 },
    fits: [q, f32(128, 2, 8), f32(128, 2, 8), i32(4), i32(3), i32(3, 8)],
    wrong: [
      [3, i32(3), "query_offsets must have 4 entries for 3 sequences, got 3"],
      [3, f32(4), "query_offsets must be i32, got f32"],
      [4, i32(2), "the sequences of context_lengths and block_tables differ: [2] and [3]"],
      [4, i32(3, 1), "context_lengths must have 1 dimensions, got [3, 1]"],
      [5, i32(24), "block_tables must have 2 dimensions, got [24]"],
      [5, f32(3, 8), "block_tables must be i32, got f32"],
      [1, i8(128, 2, 8), "k is i8: it needs k_scales"],
      [2, i32(128, 2, 8), "v must be of a float dtype, got i32"],
    ],
  }),
  update("adamw", 2, 8),
  update("adam", 2, 8),
  update("sgd", 1, 6),
  update("lion", 1, 5),
  update("adagrad", 1, 4),
  operation({
    op: "sum_of_squares",
    attributes: {},
    fits: [bf16(10)],
    wrong: [[0, i32(10), "x must be of a float dtype, got i32"]],
  }),
] as readonly Case<OpName>[];

function messageOf(op: OpName, inputs: readonly TensorType[], attributes: OpAttributes[OpName]): string {
  try {
    inferTypes(op, inputs, attributes, "model.layers.3");
  } catch (error) {
    expect(error).toBeInstanceOf(ShapeError);
    return (error as ShapeError).message;
  }
  return "nothing is wrong";
}

describe.each(cases)("$op", ({ op, attributes, fits, wrong }) => {
  test("takes what fits", () => {
    expect(messageOf(op, fits, attributes)).toBe("nothing is wrong");
  });

  test.each(wrong.map(([position, operand, problem]) => ({ position, operand, problem })))(
    "$problem",
    ({ position, operand, problem }) => {
      const message = messageOf(op, fits.with(position, operand), attributes);
      expect(message.split("\n")[0]).toBe(`${op}: ${problem}`);
      expect(message).toContain("\n  where:    model.layers.3\n");
      expect(message).toContain("\n  received: ");
    },
  );

  test("counts its operands", () => {
    expect(messageOf(op, [...fits, ...fits, ...fits], attributes)).toMatch(
      new RegExp(`^${op}: it takes .* operands, got ${3 * fits.length}\n`),
    );
  });
});

describe("attributes", () => {
  test("a reduction over one axis twice, or over one that is not there", () => {
    const reduce = (axes: number[]) =>
      messageOf("reduce", [f32(2, 3)], { reduction: "sum", axes, keep: false });
    expect(reduce([0, 1])).toBe("nothing is wrong");
    expect(reduce([1, 1])).toMatch(/^reduce: axes \[1, 1\] name one twice\n/);
    expect(reduce([2])).toMatch(/^reduce: axes \[2\] are not all there\n/);
    expect(reduce([-1])).toMatch(/^reduce: axes \[-1\] are not all there\n/);
  });

  test("a piece padded from before the start", () => {
    expect(messageOf("pad_into", [f32(4)], { starts: [-1], shape: [8] })).toMatch(
      /^pad_into: axis 0: -1 \+ 4 is past the end of \[8\]\n/,
    );
  });

  test("padding fits symbolic axes that it leaves whole, and bounds that are large enough", () => {
    expect(messageOf("pad_into", [f32(tokens, 2)], { starts: [0, 1], shape: [tokens, 4] })).toBe(
      "nothing is wrong",
    );
    expect(messageOf("pad_into", [f32(tokens)], { starts: [1], shape: [65] })).toBe("nothing is wrong");
    expect(messageOf("pad_into", [f32(tokens)], { starts: [2], shape: [65] })).toMatch(
      /2 \+ 64 is past the end/,
    );
  });

  test("scales of the keys alone", () => {
    const inputs = [q, i8(128, 2, 8), i8(128, 2, 8), i32(4), i32(3), i32(3, 8), f32(128, 2)];
    expect(messageOf("paged_attention", inputs, { scale: 1, window: 0, blockSize: 16 })).toMatch(
      /^paged_attention: scales of the keys need scales of the values beside them\n/,
    );
  });

  test("blocks of no size", () => {
    const inputs = [q, f32(128, 2, 8), f32(128, 2, 8), i32(4), i32(3), i32(3, 8)];
    expect(messageOf("paged_attention", inputs, { scale: 1, window: 0, blockSize: 0 })).toMatch(
      /^paged_attention: the block size must be a positive integer, got 0\n/,
    );
  });
});
