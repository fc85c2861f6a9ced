import { describe, expect, test } from "vitest";
import { createNativeBackend, createReferenceBackend } from "../backends.ts";
import { compile } from "./compile.ts";
import { concatenate, crossEntropy, dropout } from "./functions.ts";
import { grad, valueAndGrad } from "./grad.ts";
import { Session } from "./session.ts";
import { makeTensor, type NestedNumbers, type Tensor } from "./tensor.ts";

describe.each([
  ["native", createNativeBackend],
  ["reference", createReferenceBackend],
])("eager tensors on %s", (_name, backend) => {
  const session = new Session(backend);
  const tensor = (values: NestedNumbers) => makeTensor(session, values);

  test("arithmetic broadcasts as in NumPy", async () => {
    expect(await tensor([1, 2]).add(3).data()).toEqual(Float32Array.of(4, 5));
    const table = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(await table.subtract(tensor([1, 1, 2])).nested()).toEqual([
      [0, 1, 1],
      [3, 4, 4],
    ]);
    expect(await table.multiply(tensor([[10], [100]])).nested()).toEqual([
      [10, 20, 30],
      [400, 500, 600],
    ]);
  });

  test("shapes: reshape with -1, transpose, slice, gather, concatenate", async () => {
    const table = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(await table.reshape([3, -1]).nested()).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(await table.transpose().nested()).toEqual([
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
    expect(await table.slice([0, 1], [2, 2]).nested()).toEqual([
      [2, 3],
      [5, 6],
    ]);
    expect(await table.gather(makeTensor(session, [1, 1, 0], { dtype: "i32" })).nested()).toEqual([
      [4, 5, 6],
      [4, 5, 6],
      [1, 2, 3],
    ]);
    expect((await concatenate([table, table], 1).nested()) as number[][]).toEqual([
      [1, 2, 3, 1, 2, 3],
      [4, 5, 6, 4, 5, 6],
    ]);
  });

  test("reductions, argmax and products", async () => {
    const table = tensor([
      [1, 7, 3],
      [4, 5, 9],
    ]);
    expect(await table.sum().item()).toBe(29);
    expect(await table.mean(0).nested()).toEqual([2.5, 6, 6]);
    expect(await table.max(-1).nested()).toEqual([7, 9]);
    expect(await table.argmax().nested()).toEqual([1, 2]);
    expect(await table.matmul(table, { transposeOther: true }).nested()).toEqual([
      [59, 66],
      [66, 122],
    ]);
  });

  test("first and second derivatives", async () => {
    const cube = (x: Tensor) => x.multiply(x).multiply(x).sum();
    const x = tensor([1, 2, 3]);
    const { value, gradients } = valueAndGrad(cube)(x);
    expect(await value.item()).toBe(36);
    expect(await gradients[0]!.nested()).toEqual([3, 12, 27]);
    const second = grad((y) => grad(cube)(y)[0]!.sum())(x);
    expect(await second[0]!.nested()).toEqual([6, 12, 18]);
  });

  test("the gradient of a mean cross-entropy is softmax minus the target", async () => {
    const targets = makeTensor(session, [2, 0], { dtype: "i32" });
    const logits = tensor([
      [1, 2, 3],
      [0, 0, 0],
    ]);
    const [gradient] = grad((x) => crossEntropy(x, targets).mean())(logits);
    const [a, b, c] = [1, 2, 3].map((x) => Math.exp(x) / (Math.exp(1) + Math.exp(2) + Math.exp(3)));
    const expected = [a! / 2, b! / 2, (c! - 1) / 2, -1 / 3, 1 / 6, 1 / 6];
    (await gradient!.numbers()).forEach((value, index) => {
      expect(value).toBeCloseTo(expected[index]!, 6);
    });
  });

  test("compiled functions take tensors from around them and run for new inputs", async () => {
    const weight = tensor([2, 4]);
    const scaled = compile((x) => x.multiply(weight).add(1));
    expect(await (await scaled(tensor([1, 1])))[0]!.nested()).toEqual([3, 5]);
    expect(
      await (
        await scaled(
          tensor([
            [1, 1],
            [0, 10],
          ]),
        )
      )[0]!.nested(),
    ).toEqual([
      [3, 5],
      [1, 41],
    ]);
  });

  test("dropout keeps the mean and repeats for a seed", async () => {
    const seed = makeTensor(session, [5, 1], { dtype: "i32" });
    const ones = makeTensor(session, new Float32Array(4000).fill(1), { shape: [4000] });
    const first = await dropout(ones, seed, 3, 0.25).numbers();
    expect(first).toEqual(await dropout(ones, seed, 3, 0.25).numbers());
    expect(new Set(first.map((value) => value.toFixed(4)))).toEqual(new Set(["0.0000", "1.3333"]));
    expect(Math.abs(first.filter((value) => value === 0).length / 4000 - 0.25)).toBeLessThan(0.03);
  });

  test("errors name the op and both shapes", () => {
    expect(() => tensor([1, 2]).add(tensor([1, 2, 3]))).toThrow(
      /elementwise: shapes do not broadcast: \[2\] and \[3\]/,
    );
    expect(() => tensor([[1, 2]]).matmul(tensor([[1, 2]]))).toThrow(
      /matmul: inner sizes differ: \[2\] and \[1\]/,
    );
    expect(() => tensor([[1, 2], [3]])).toThrow(/rows of equal length/);
    expect(() => grad((x) => x)(tensor([1, 2]))).toThrow(/only a scalar can be differentiated/);
  });
});

test("tensors of different backends do not mix", () => {
  const a = makeTensor(new Session(createNativeBackend), [1]);
  const b = makeTensor(new Session(createReferenceBackend), [1]);
  expect(() => a.add(b)).toThrow(/do not mix/);
});

test("a symbolic tensor has no data", async () => {
  let inside: Tensor | undefined;
  const session = new Session(createReferenceBackend);
  await compile((x) => {
    inside = x;
    return x.add(1);
  })(makeTensor(session, [1]));
  await expect(inside!.data()).rejects.toThrow(/symbolic/);
});
