import { expect, test } from "vitest";
import { fromBf16Bits } from "../../src/base/dtype.ts";
import { referenceHead } from "./attention_reference.ts";
import { runChild } from "./child.ts";
import { interleave } from "./interleave.ts";
import { randomBatch } from "./llama.ts";
import { withPeers } from "./peers.ts";
import { noise, read, relativeError, requireClose, toFloat64 } from "./tensors.ts";

test("contestants take turns, and the first run of each is not counted", async () => {
  const order: string[] = [];
  const contestant = (name: string, seconds: number) => ({
    name,
    run: (repetitions: number): number[] => {
      order.push(name);
      return Array.from({ length: repetitions }, () => (order.length <= 2 ? 9 : seconds));
    },
  });
  let between = 0;
  const { spreads, failures } = await interleave([contestant("A", 1), contestant("B", 2)], {
    rounds: 3,
    seconds: 0,
    between: () => {
      between++;
    },
  });
  expect(order.join("")).toBe("ABABABAB");
  expect(spreads.get("A")).toEqual({ median: 1, low: 1, high: 1, count: 3 });
  expect(spreads.get("B")).toEqual({ median: 2, low: 2, high: 2, count: 3 });
  expect(failures.size).toBe(0);
  expect(between).toBe(4);
});

test("short runs are repeated within a turn, as far as the time allows", async () => {
  const asked: number[] = [];
  const run = (repetitions: number): number[] => {
    asked.push(repetitions);
    return Array.from({ length: repetitions }, () => 0.01);
  };
  const { spreads } = await interleave([{ name: "A", run }], { rounds: 2, seconds: 0.2 });
  expect(asked).toEqual([1, 10, 10]);
  expect(spreads.get("A")!.count).toBe(20);
});

test("a contestant that fails in mid-run is left out with its reason; the others go on", async () => {
  let runs = 0;
  const failing = {
    name: "peer",
    run: async (): Promise<number[]> => {
      runs++;
      if (runs === 2) throw new Error("out of memory");
      return [1];
    },
  };
  const ours = { name: "ours", run: () => [1] };
  const { spreads, failures } = await interleave([ours, failing], { rounds: 3, seconds: 0 });
  expect([...spreads.keys()]).toEqual(["ours"]);
  expect(spreads.get("ours")!.count).toBe(3);
  expect(failures.get("peer")).toBe("out of memory");
  expect(runs).toBe(2);
});

test("both dtypes hold the same noise, between -1 and 1", () => {
  const single = noise("f32", [64], 7);
  const half = noise("bf16", [64], 7);
  expect(toFloat64(half)).toEqual(toFloat64(single));
  expect(read(half, 5)).toBe(fromBf16Bits(half.data[5]!));
  expect(Math.max(...toFloat64(single).map(Math.abs))).toBeLessThanOrEqual(1);
  expect(new Set(single.data).size).toBeGreaterThan(40);
});

test("errors are relative to the whole tensor, and NaN is one", () => {
  expect(relativeError([3, 4.5], [3, 4])).toBeCloseTo(0.1, 12);
  expect(() => requireClose("c", 0.1, 0.2)).not.toThrow();
  expect(() => requireClose("c", 0.3, 0.2)).toThrow("c is wrong: relative error 3.0e-1, allowed 2.0e-1");
  expect(() => requireClose("c", Number.NaN, 0.2)).toThrow("c is wrong");
});

test("the reference of attention: outputs by hand, gradients by central differences", () => {
  const shape = [3, 2, 4];
  const [q, k, v, dOut] = [1, 2, 3, 4].map((seed) => noise("f32", shape, seed));
  const operands = { q: q!, k: k!, v: v!, dOut: dOut! };
  const head = 1;
  const { out, dQ, dK, dV } = referenceHead(operands, head);
  // The first token sees itself alone.
  expect([...out.subarray(0, 4)]).toEqual([...v!.data.subarray(4, 8)]);
  const weighted = (): number => {
    const results = referenceHead(operands, head).out;
    let sum = 0;
    for (let token = 0; token < 3; token++)
      for (let i = 0; i < 4; i++) sum += results[token * 4 + i]! * dOut!.data[(token * 2 + head) * 4 + i]!;
    return sum;
  };
  for (const [tensor, gradient] of [
    [q!, dQ],
    [k!, dK],
    [v!, dV],
  ] as const) {
    for (let token = 0; token < 3; token++) {
      for (let i = 0; i < 4; i++) {
        const place = (token * 2 + head) * 4 + i;
        const kept = tensor.data[place]!;
        // Steps that float32 holds exactly.
        tensor.data[place] = kept + 2 ** -9;
        const above = weighted();
        tensor.data[place] = kept - 2 ** -9;
        const below = weighted();
        tensor.data[place] = kept;
        expect(gradient[token * 4 + i]!).toBeCloseTo((above - below) / 2 ** -8, 5);
      }
    }
  }
});

test("a batch's targets are its next tokens", () => {
  const { tokens, targets, positions, offsets, targetCount } = randomBatch(2, 5, 100, 1);
  for (const row of [0, 5]) expect(targets.subarray(row, row + 4)).toEqual(tokens.subarray(row + 1, row + 5));
  expect([...positions]).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
  expect([...offsets]).toEqual([0, 5, 10]);
  expect(targetCount).toBe(10);
  expect(Math.max(...tokens)).toBeLessThan(100);
});

test("peers that are not asked for are neither started nor told of", async () => {
  const notes: string[] = [];
  let seen: unknown;
  await withPeers(
    {},
    (line) => notes.push(line),
    async (peers) => {
      seen = peers;
    },
  );
  expect(seen).toEqual({ torch: undefined, onnx: undefined, blasWarning: undefined });
  expect(notes).toEqual([]);
});

test("a child measures attention in a process of its own", async () => {
  const result = JSON.parse(await runChild("attention_length", ["256", "1"])) as Record<string, number>;
  // q, k, v, out, their gradients and d_out: 8 tensors of 256 x 64 in bf16, and the values in between.
  expect(result.planned).toBeGreaterThan(8 * 256 * 64 * 2);
  expect(result.planned).toBeLessThan(16 * 256 * 64 * 2);
  expect(result.seconds).toBeGreaterThan(0);
});

test("a child that fails tells why", async () => {
  await expect(runChild("attention_length", ["-1", "1"])).rejects.toThrow(/Command failed[\s\S]*Error/);
});
