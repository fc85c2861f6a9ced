import { dtypeCode } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { blockTypes, type QuantizedParameter } from "../../base/quantized_format.ts";
import type { KernelStep, ProgramTensor, StoreStep, TransferStep } from "../../compiler/plan/program.ts";
import { type Expression, elementwiseOpcodes } from "../../graph/expression.ts";
import {
  type AttentionAttributes,
  activations,
  blockGradientSums,
  distributions,
  type OpName,
  reductions,
} from "../../graph/ops.ts";

/** A step as native code takes it. Tensor -1 is an absent operand. */
export interface KernelCall {
  readonly kernel: string;
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly attributes: readonly number[];
}

type Lowering<Op extends OpName> = (
  step: KernelStep<Op>,
  tensors: readonly ProgramTensor[],
) => { readonly kernel: string; readonly inputs?: readonly number[]; readonly attributes: readonly number[] };

const flag = (value: boolean): number => (value ? 1 : 0);

/** Instructions as numbers: count, then opcode, a, b, c, immediate each. */
function encodeExpression(expression: Expression): number[] {
  const words = [expression.instructions.length];
  for (const instruction of expression.instructions) {
    const opcode = elementwiseOpcodes.indexOf(instruction.operation);
    const operands = instruction.operation === "constant" ? [] : instruction.operands;
    const immediate = instruction.operation === "constant" ? instruction.value : 0;
    words.push(opcode, operands[0] ?? 0, operands[1] ?? 0, operands[2] ?? 0, immediate);
  }
  return words;
}

/** Operands with -1 for an absent bias, so that each has its place. */
function epilogueOperands(inputs: readonly number[], bias: boolean, residual: boolean): number[] {
  const [a, b, ...extra] = inputs as [number, number, ...number[]];
  return [a, b, bias ? extra[0]! : -1, residual ? extra.at(-1)! : -1];
}

/** A packed matrix as its kernels take it. */
function packedMatrix({ format, columns }: QuantizedParameter): number[] {
  return [format.bits, format.group, flag(format.minimum), columns];
}

/** An op whose kernel has its name and these attributes. */
function plain(op: OpName, attributes: readonly number[] = []) {
  return { kernel: op, attributes };
}

function masks({ scale, causal, window }: AttentionAttributes): number[] {
  return [scale, flag(causal), window];
}

function noKernel(step: KernelStep): never {
  throw new InternalError(`${step.op} has no kernel: it should not reach a program`);
}

/** The kernel of every op and its attributes in the order of docs/kernels.md. */
const lowerings: { readonly [Op in OpName]: Lowering<Op> } = {
  leaf: noKernel,
  constant: noKernel,
  reshape: noKernel,
  fill: ({ attributes }) => plain("fill", [attributes.value]),
  iota: ({ attributes }) => plain("iota", [attributes.axis]),
  random: ({ attributes }) =>
    plain("random", [distributions.indexOf(attributes.distribution), attributes.stream]),
  elementwise: ({ attributes, inputs }) =>
    plain(
      "map",
      encodeExpression({
        inputs: inputs.length,
        instructions: [{ operation: attributes.operation, operands: inputs.map((_, index) => index) }],
      }),
    ),
  cast: () => plain("map", [0]),
  broadcast: () => plain("map", [0]),
  map: ({ attributes }) => plain("map", encodeExpression(attributes.expression)),
  transpose: ({ attributes }) => plain("transpose", attributes.permutation),
  slice: ({ attributes }) => plain("slice", attributes.starts),
  pad_into: ({ attributes }) => plain("pad_into", attributes.starts),
  concatenate: ({ attributes }) => plain("concatenate", [attributes.axis]),
  gather: () => plain("gather"),
  scatter_add: () => plain("scatter_add"),
  reduce: ({ attributes }) => plain("reduce", [reductions.indexOf(attributes.reduction), ...attributes.axes]),
  argmax: () => plain("argmax"),
  matmul: ({ attributes, inputs, accumulate }) => {
    const { transposeA, transposeB, activation, bias, residual } = attributes;
    return {
      kernel: "matmul",
      inputs: epilogueOperands(inputs, bias, residual),
      attributes: [flag(transposeA), flag(transposeB), activations.indexOf(activation), flag(accumulate)],
    };
  },
  pack_matrix: ({ attributes }) =>
    plain("pack_matrix", [flag(attributes.transposeB), dtypeCode(attributes.elements)]),
  matmul_packed: ({ attributes, inputs, accumulate }, tensors) => {
    const { columns, elements, activation, bias, residual } = attributes;
    const rows = tensors[inputs[0]!]!.shape.at(-1);
    if (typeof rows !== "number") throw new InternalError("matmul_packed: the inner size is not fixed");
    return {
      kernel: "matmul_packed",
      inputs: epilogueOperands(inputs, bias, residual),
      attributes: [rows, columns, dtypeCode(elements), activations.indexOf(activation), flag(accumulate)],
    };
  },
  quantize_rows: ({ attributes }) => plain("quantize_rows", [attributes.group]),
  matmul_quantized: ({ attributes }) => {
    const { weights, inner, activation, bias, residual } = attributes;
    return plain("matmul_quantized", [
      inner,
      weights[0]!.format.group,
      activations.indexOf(activation),
      weights.length,
      flag(bias),
      flag(residual),
      ...weights.flatMap(({ format, columns }) => [format.bits, flag(format.minimum), columns]),
    ]);
  },
  repack_blocks: ({ attributes: { type, rows, columns } }) =>
    plain("repack_blocks", [blockTypes.indexOf(type), rows, columns]),
  quantize_matrix: ({ attributes: { format } }) =>
    plain("quantize_matrix", [format.bits, format.group, flag(format.minimum)]),
  embedding_quantized: ({ attributes }) => plain("embedding_quantized", packedMatrix(attributes)),
  dequantize_matrix: ({ attributes }) => plain("dequantize_matrix", packedMatrix(attributes)),
  quantize_blocks: ({ attributes: { bits, block } }) => plain("quantize_blocks", [bits, block]),
  dequantize_blocks: ({ attributes: { bits, block } }) => plain("dequantize_blocks", [bits, block]),
  linear_cross_entropy: () => plain("linear_cross_entropy"),
  linear_cross_entropy_gradient: ({ accumulate }) =>
    plain("linear_cross_entropy_gradient", [flag(accumulate)]),
  rms_norm: ({ attributes }) => plain("rms_norm", [attributes.epsilon]),
  rms_norm_gradient: ({ accumulate }) => plain("rms_norm_gradient", [flag(accumulate)]),
  layer_norm: ({ attributes }) => plain("layer_norm", [attributes.epsilon]),
  layer_norm_gradient: ({ accumulate }) => plain("layer_norm_gradient", [flag(accumulate)]),
  rope: ({ attributes }) => plain("rope", [flag(attributes.inverse), flag(attributes.interleaved)]),
  swiglu: () => plain("swiglu"),
  swiglu_gradient: () => plain("swiglu_gradient"),
  softmax: () => plain("softmax"),
  softmax_gradient: () => plain("softmax_gradient"),
  cross_entropy: () => plain("cross_entropy"),
  cross_entropy_gradient: () => plain("cross_entropy_gradient"),
  embedding: () => plain("embedding"),
  embedding_gradient: ({ accumulate }) => plain("embedding_gradient", [flag(accumulate)]),
  attention: ({ attributes }) => plain("attention", masks(attributes)),
  attention_gradient: ({ attributes }) => plain("attention_gradient", masks(attributes)),
  attention_block: ({ attributes }) => plain("attention_block", masks(attributes)),
  attention_block_gradient: ({ attributes }) =>
    plain("attention_block_gradient", [...masks(attributes), blockGradientSums.indexOf(attributes.sums)]),
  attention_delta: () => plain("attention_delta"),
  cache_write: () => plain("cache_write"),
  cache_write_quantized: () => plain("cache_write_quantized"),
  cache_copy: ({ attributes }) => plain("cache_copy", [attributes.blockSize]),
  paged_attention: ({ attributes }) =>
    plain("paged_attention", [attributes.scale, attributes.window, attributes.blockSize]),
  sample: () => plain("sample"),
  adamw: () => plain("adamw"),
  adam: () => plain("adam"),
  sgd: () => plain("sgd"),
  lion: () => plain("lion"),
  adagrad: () => plain("adagrad"),
  sum_of_squares: () => plain("sum_of_squares"),
  all_reduce: noKernel,
  reduce_scatter: noKernel,
  all_gather: noKernel,
  all_to_all: noKernel,
  permute: noKernel,
};

/**
 * The kernel call of a step that is one.
 * @param stores the numbers of the stores, by name.
 */
export function lowerStep(
  step: KernelStep | StoreStep | TransferStep,
  tensors: readonly ProgramTensor[],
  stores: ReadonlyMap<string, number> = new Map(),
): KernelCall {
  if (step.kind === "transfer") {
    const store = stores.get(step.store);
    if (store === undefined) throw new InternalError(`no store "${step.store}" was given to the program`);
    // What is loaded is an operand, not a result: it is not there yet when the step ends.
    return step.action === "load" || step.action === "save"
      ? {
          kernel: step.action,
          inputs: [step.tensor],
          outputs: [],
          attributes: [store, step.offset, step.number],
        }
      : { kernel: step.action, inputs: [], outputs: [], attributes: [store, step.number] };
  }
  if (step.kind === "store") {
    return {
      kernel: "store",
      inputs: [step.input],
      outputs: [step.output],
      attributes: [flag(step.accumulate)],
    };
  }
  const lowering = lowerings[step.op] as Lowering<OpName>;
  const { kernel, attributes, inputs } = lowering(step, tensors);
  return { kernel, attributes, inputs: inputs ?? step.inputs, outputs: step.outputs };
}
