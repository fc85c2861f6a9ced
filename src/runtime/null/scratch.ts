import { panelColumns } from "../../base/quantized_format.ts";
import { boundShape } from "../../base/shape.ts";
import type { AnyNode, Graph } from "../../graph/graph.ts";
import { shapeOf } from "../../graph/graph.ts";

/**
 * Estimates of the work space that native kernels keep beside a program's arena. It stays allocated between
 * calls, so what counts is the most that any step asks for. The sizes follow the head comments of the kernels.
 */

/** Blocks of both operands and the float32 sums of one thread of a product (native/kernels/matmul/driver.h). */
const productBytes = 2.3 * 2 ** 20;
/** What a loss keeps of logits at once (native/kernels/matmul/linear_cross_entropy.h). */
const logitsBytes = 32 * 2 ** 20;
const lossTokens = { forward: 2048, gradient: 512 };
/** Attention converts keys and values, and sums their gradients, for one head of a sequence at a time. */
const attentionBytesPerElement = 16;
/** Sampling keeps six lists of words as long as the vocabulary (native/kernels/sampling/sampling.h). */
const samplingBytesPerToken = 24;

interface Scratch {
  /** Bytes of every thread. */
  readonly each: number;
  /** Bytes that threads share. */
  readonly shared: number;
}

function scratchOf(node: AnyNode): Scratch {
  switch (node.op) {
    case "matmul":
    case "matmul_packed":
      return { each: productBytes, shared: 0 };
    case "matmul_quantized": {
      // Float sums of a panel, 528 rows at the most (native/kernels/quantized/matmul.h).
      const rows = boundShape(shapeOf(node.inputs[0]!))
        .slice(0, -1)
        .reduce((a, b) => a * b, 1);
      return { each: 4 * panelColumns * Math.min(rows, 528), shared: 0 };
    }
    case "linear_cross_entropy":
    case "linear_cross_entropy_gradient": {
      const gradient = node.op === "linear_cross_entropy_gradient";
      const [tokens] = boundShape(shapeOf(node.inputs[gradient ? 1 : 0]!)) as [number];
      const [vocabulary] = boundShape(shapeOf(node.inputs[gradient ? 2 : 1]!)) as [number];
      const chunk = Math.min(tokens, gradient ? lossTokens.gradient : lossTokens.forward);
      const sums = 8 * Math.ceil(vocabulary / 512) * chunk + 12 * chunk;
      return {
        each: productBytes,
        shared: sums + (gradient ? Math.min(4 * chunk * vocabulary, logitsBytes) : 0),
      };
    }
    case "attention":
    case "attention_gradient": {
      const [tokens, , size] = boundShape(shapeOf(node.inputs[node.op === "attention" ? 0 : 1]!)) as number[];
      return { each: attentionBytesPerElement * Math.min(tokens!, 4096) * size!, shared: 0 };
    }
    case "attention_block":
    case "attention_block_gradient": {
      const [tokens, , size] = boundShape(
        shapeOf(node.inputs[node.op === "attention_block" ? 1 : 2]!),
      ) as number[];
      return { each: attentionBytesPerElement * tokens! * size!, shared: 0 };
    }
    case "sample": {
      const [, vocabulary] = boundShape(shapeOf(node.inputs[0]!)) as [number, number];
      return { each: samplingBytesPerToken * vocabulary, shared: 0 };
    }
    default:
      return { each: 0, shared: 0 };
  }
}

/** Bytes of work space over `threads` threads. */
export function scratchBytes(graph: Graph, threads: number): number {
  let each = 0;
  let first = 0;
  for (const node of graph.nodes) {
    const scratch = scratchOf(node);
    each = Math.max(each, scratch.each);
    first = Math.max(first, scratch.each + scratch.shared);
  }
  return Math.round(first + each * (threads - 1));
}
