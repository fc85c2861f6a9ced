import { add, reduce, reshape, subtract } from "../../graph/build.ts";
import { type AnyNode, createNode, type dtypeOf, type Node, shapeOf, type Value } from "../../graph/graph.ts";
import type { BlockFormat, RankGroup } from "../../graph/ops.ts";

/** How parameters are sent: scales are a sixteenth of the bytes. */
export const weightFormat: BlockFormat = { bits: 8, block: 64 };
/** How gradients are sent: blocks small enough that few elements vanish beside a large one. */
export const gradientFormat: BlockFormat = { bits: 4, block: 128 };

/** Whole numbers and the scales of their blocks. */
export interface QuantizedValue {
  readonly values: Value;
  readonly scales: Value;
}

/** Rows in blocks of whole numbers. */
export function quantize(rows: Value, format: BlockFormat): QuantizedValue {
  const node = createNode("quantize_blocks", [rows], format);
  return { values: { node, index: 0 }, scales: { node, index: 1 } };
}

/** The numbers that quantized rows of `columns` elements stand for. */
export function dequantize(
  { values, scales }: QuantizedValue,
  columns: number,
  format: BlockFormat,
  dtype: ReturnType<typeof dtypeOf>,
): Value {
  const node = createNode("dequantize_blocks", [values, scales], { ...format, columns, dtype });
  return { node, index: 0 };
}

/** A gradient on its way to the ranks that keep its parts. */
export interface QuantizedGradient {
  readonly sent: QuantizedValue;
  /** What the rank did not send: it is added to the next gradient. */
  readonly residual: Value;
}

/**
 * A flat gradient with what earlier ones left behind, a row a rank in blocks of whole numbers.
 * @param residual of the gradient's shape `[padded]`
 */
export function quantizeGradient(gradient: Value, residual: Value, group: RankGroup): QuantizedGradient {
  const whole = add(gradient, residual);
  const elements = shapeOf(whole)[0] as number;
  const part = elements / group.size;
  const sent = quantize(reshape(whole, [group.size, part]), gradientFormat);
  const known = reshape(dequantize(sent, part, gradientFormat, "f32"), [elements]);
  return { sent, residual: subtract(whole, known) };
}

/** The sum of the rows that the ranks sent, added in their order. */
export function sumOfRows(received: QuantizedValue, part: number): Value {
  return reduce("sum", dequantize(received, part, gradientFormat, "f32"), [0]);
}

/** The nodes that make a value, those of `known` and leaves left out, each after its operands. */
export function nodesBehind(value: Value, known: ReadonlySet<Node>): AnyNode[] {
  const found: AnyNode[] = [];
  const seen = new Set<Node>();
  const visit = (node: Node): void => {
    if (seen.has(node) || known.has(node) || node.op === "leaf") return;
    seen.add(node);
    for (const input of node.inputs) visit(input.node);
    found.push(node as AnyNode);
  };
  visit(value.node);
  return found;
}
