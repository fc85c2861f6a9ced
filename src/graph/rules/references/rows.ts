import { elementCount } from "../../../base/shape.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { checkIndex, rowsOf } from "./common.ts";
import { crossEntropy, crossEntropyGradient } from "./cross_entropy.ts";
import { sigmoid } from "./mathematics.ts";

type RowOp =
  | "rms_norm"
  | "rms_norm_gradient"
  | "layer_norm"
  | "layer_norm_gradient"
  | "rope"
  | "softmax"
  | "softmax_gradient"
  | "swiglu"
  | "swiglu_gradient"
  | "cross_entropy"
  | "cross_entropy_gradient"
  | "embedding"
  | "embedding_gradient";

/** Rotates x [T, H, D] by position times frequency, pair by pair. */
function rotate(
  x: ReferenceTensor,
  positions: Float64Array,
  frequencies: Float64Array,
  inverse: boolean,
  interleaved: boolean,
): Float64Array {
  const [tokens, heads, size] = x.shape as [number, number, number];
  const pairs = frequencies.length;
  const y = x.values.slice();
  for (let token = 0; token < tokens; token++) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = positions[token]! * frequencies[pair]! * (inverse ? -1 : 1);
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      const first = interleaved ? 2 * pair : pair;
      const second = interleaved ? 2 * pair + 1 : pair + pairs;
      for (let head = 0; head < heads; head++) {
        const start = (token * heads + head) * size;
        const [a, b] = [x.values[start + first]!, x.values[start + second]!];
        y[start + first] = a * cosine - b * sine;
        y[start + second] = b * cosine + a * sine;
      }
    }
  }
  return y;
}

/** Meaning of the ops that work on rows. */
export const rowReferences: { readonly [Op in RowOp]: ReferenceRule<Op> } = {
  rms_norm: ([x, weight], { epsilon }) => {
    const { rows, size } = rowsOf(x!);
    const y = new Float64Array(rows * size);
    const inverse = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      let squares = 0;
      for (let i = 0; i < size; i++) squares += x!.values[row * size + i]! ** 2;
      inverse[row] = 1 / Math.sqrt(squares / size + epsilon);
      for (let i = 0; i < size; i++) {
        y[row * size + i] = x!.values[row * size + i]! * inverse[row]! * weight!.values[i]!;
      }
    }
    return [y, inverse];
  },
  // With n = x * inverse: d_x = inverse (d_n - n mean(d_n n)), d_n = d_y weight.
  rms_norm_gradient: ([dY, x, weight, inverse]) => {
    const { rows, size } = rowsOf(x!);
    const dX = new Float64Array(rows * size);
    const dWeight = new Float64Array(size);
    for (let row = 0; row < rows; row++) {
      const scale = inverse!.values[row]!;
      let mean = 0;
      for (let i = 0; i < size; i++) {
        const position = row * size + i;
        const normal = x!.values[position]! * scale;
        mean += (dY!.values[position]! * weight!.values[i]! * normal) / size;
        dWeight[i]! += dY!.values[position]! * normal;
      }
      for (let i = 0; i < size; i++) {
        const position = row * size + i;
        const normal = x!.values[position]! * scale;
        dX[position] = scale * (dY!.values[position]! * weight!.values[i]! - normal * mean);
      }
    }
    return [dX, dWeight];
  },
  layer_norm: ([x, weight, bias], { epsilon }) => {
    const { rows, size } = rowsOf(x!);
    const y = new Float64Array(rows * size);
    const means = new Float64Array(rows);
    const inverse = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      let mean = 0;
      for (let i = 0; i < size; i++) mean += x!.values[row * size + i]! / size;
      let variance = 0;
      for (let i = 0; i < size; i++) variance += (x!.values[row * size + i]! - mean) ** 2 / size;
      means[row] = mean;
      inverse[row] = 1 / Math.sqrt(variance + epsilon);
      for (let i = 0; i < size; i++) {
        const normal = (x!.values[row * size + i]! - mean) * inverse[row]!;
        y[row * size + i] = normal * weight!.values[i]! + (bias === undefined ? 0 : bias.values[i]!);
      }
    }
    return [y, means, inverse];
  },
  // With n the normalised x: d_x = inverse (d_n - mean(d_n) - n mean(d_n n)), d_n = d_y weight.
  layer_norm_gradient: ([dY, x, weight, mean, inverse]) => {
    const { rows, size } = rowsOf(x!);
    const dX = new Float64Array(rows * size);
    const dWeight = new Float64Array(size);
    const dBias = new Float64Array(size);
    for (let row = 0; row < rows; row++) {
      const [center, scale] = [mean!.values[row]!, inverse!.values[row]!];
      let meanGradient = 0;
      let meanProduct = 0;
      for (let i = 0; i < size; i++) {
        const position = row * size + i;
        const normal = (x!.values[position]! - center) * scale;
        const dNormal = dY!.values[position]! * weight!.values[i]!;
        meanGradient += dNormal / size;
        meanProduct += (dNormal * normal) / size;
        dWeight[i]! += dY!.values[position]! * normal;
        dBias[i]! += dY!.values[position]!;
      }
      for (let i = 0; i < size; i++) {
        const position = row * size + i;
        const normal = (x!.values[position]! - center) * scale;
        dX[position] =
          scale * (dY!.values[position]! * weight!.values[i]! - meanGradient - normal * meanProduct);
      }
    }
    return [dX, dWeight, dBias];
  },
  rope: ([x, positions, frequencies], { inverse, interleaved }) => [
    rotate(x!, positions!.values, frequencies!.values, inverse, interleaved),
  ],
  softmax: ([x]) => {
    const { rows, size } = rowsOf(x!);
    const y = new Float64Array(rows * size);
    for (let start = 0; start < y.length; start += size) {
      let maximum = Number.NEGATIVE_INFINITY;
      for (let i = start; i < start + size; i++) maximum = Math.max(maximum, x!.values[i]!);
      let sum = 0;
      for (let i = start; i < start + size; i++) sum += Math.exp(x!.values[i]! - maximum);
      for (let i = start; i < start + size; i++) y[i] = Math.exp(x!.values[i]! - maximum) / sum;
    }
    return [y];
  },
  swiglu: ([gate, up]) => [gate!.values.map((g, i) => g * sigmoid(g) * up!.values[i]!)],
  // d silu(g) / d g = s (1 + g (1 - s)), s = sigmoid(g).
  swiglu_gradient: ([dY, gate, up]) => [
    gate!.values.map((g, i) => {
      const s = sigmoid(g);
      return dY!.values[i]! * up!.values[i]! * s * (1 + g * (1 - s));
    }),
    gate!.values.map((g, i) => dY!.values[i]! * g * sigmoid(g)),
  ],
  softmax_gradient: ([dY, y]) => {
    const { rows, size } = rowsOf(y!);
    const dX = new Float64Array(rows * size);
    for (let start = 0; start < dX.length; start += size) {
      let dot = 0;
      for (let i = start; i < start + size; i++) dot += dY!.values[i]! * y!.values[i]!;
      for (let i = start; i < start + size; i++) dX[i] = y!.values[i]! * (dY!.values[i]! - dot);
    }
    return [dX];
  },
  cross_entropy: ([logits, targets]) => {
    const { losses, logsumexp } = crossEntropy("cross_entropy", logits!, targets!);
    return [losses, logsumexp];
  },
  cross_entropy_gradient: ([dLosses, logits, targets, logsumexp]) => [
    crossEntropyGradient("cross_entropy_gradient", dLosses!.values, logits!, targets!, logsumexp!.values),
  ],
  embedding: ([weight, ids], _attributes, [shape]) => {
    const [vocabulary, size] = weight!.shape as [number, number];
    const y = new Float64Array(elementCount(shape!));
    ids!.values.forEach((id, position) => {
      const row = checkIndex("embedding", "ids", id, position, vocabulary);
      y.set(weight!.values.subarray(row * size, (row + 1) * size), position * size);
    });
    return [y];
  },
  embedding_gradient: ([dY, ids], { vocabulary }) => {
    const { size } = rowsOf(dY!);
    const dWeight = new Float64Array(vocabulary * size);
    ids!.values.forEach((id, position) => {
      const row = checkIndex("embedding_gradient", "ids", id, position, vocabulary);
      for (let i = 0; i < size; i++) dWeight[row * size + i]! += dY!.values[position * size + i]!;
    });
    return [dWeight];
  },
};
