import { describe, expect, it } from "vitest";
import { runKernel, runnableIsas, tensorOf, valuesOf, zeros } from "./support.ts";

/** Float32 lanes of a vector, by instruction set. */
const lanes: Record<string, number> = { scalar: 4, neon: 4, avx2: 8 };

describe.each(runnableIsas())("measuring kernels on %s", (isa) => {
  it("count the operations that they do: 12 vector multiply-adds an iteration and thread", () => {
    for (const threads of [1, 3]) {
      const operations = zeros("f32", [1]);
      runKernel("measure_peak", isa, [], [operations], [0, 50], threads);
      expect(valuesOf(operations)[0]).toBe(2 * 12 * (lanes[isa] ?? 16) * 50 * threads);
    }
  });

  it("read every byte of a buffer once", () => {
    const buffer = tensorOf("f32", [3 * 1024], new Float64Array(3 * 1024).fill(0.5));
    const bytes = { ...buffer, dtype: "u8" as const, shape: [buffer.data.byteLength] };
    const sums = zeros("f32", [2]);
    runKernel("measure_bandwidth", isa, [bytes], [sums], [], 2);
    // The first element of each vector is what the kernel reports: one in every `lanes`.
    const expected = (3 * 1024 * 0.5) / (lanes[isa] ?? 16);
    expect(valuesOf(sums)[0]! + valuesOf(sums)[1]!).toBe(expected);
  });
});
