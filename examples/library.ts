/** Fits a curve with a network written by hand: `node examples/library.ts`. */
import { compile, tensor, valueAndGrad } from "slipstream";

const x = tensor(Array.from({ length: 64 }, (_, i) => [i / 32 - 1]));
const y = tensor(Array.from({ length: 64 }, (_, i) => [Math.sin(3 * (i / 32 - 1))]));
let parameters = [
  tensor([Array.from({ length: 32 }, (_, i) => Math.sin(i * 7))]), // [1, 32]
  tensor(Array.from({ length: 32 }, (_, i) => Math.cos(i * 5))), // [32]
  tensor(Array.from({ length: 32 }, (_, i) => [Math.sin(i * 3) / 6])), // [32, 1]
];

// Recorded once, differentiated, fused and planned; every call then runs one native program.
const step = compile((w1, b1, w2) => {
  const { value, gradients } = valueAndGrad((w1, b1, w2) => {
    const error = x.matmul(w1).add(b1).tanh().matmul(w2).subtract(y);
    return error.multiply(error).mean();
  })(w1, b1, w2);
  return [value, ...[w1, b1, w2].map((w, i) => w.subtract(gradients[i]!.multiply(0.05)))];
});

for (let i = 0; i <= 2000; i++) {
  const [loss, ...updated] = await step(...parameters);
  parameters = updated;
  if (i % 500 === 0) console.log(`step ${i}: mean squared error ${(await loss!.item()).toFixed(5)}`);
}
