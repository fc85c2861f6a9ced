import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { add, broadcast, leaf, matmul, reduce, unary } from "../../graph/build.ts";
import { buildGraph } from "../../graph/graph.ts";
import { createNativeBackend } from "./backend.ts";

const x = leaf("x", "input", [256, 256], "f32");

test("isolated backends run their programs at the same time", async () => {
  const ranks = [0, 1, 2, 3, 4, 5, 6, 7].map((rank) => {
    const backend = createNativeBackend({ isolated: true, threads: 1 });
    const sum = reduce("sum", unary("exp", matmul(add(x, rank), add(x, 0))), [0, 1]);
    return { backend, executable: backend.compile(buildGraph(`rank ${rank}`, [{ name: "y", value: sum }])) };
  });
  const runs = ranks.flatMap(({ executable }) =>
    [0, 1, 2].map(async () => {
      const y = new Float32Array(1);
      await executable.run({ x: new Float32Array(256 * 256), y });
      return y[0];
    }),
  );
  // The products of anything with zeros are zero, and exp(0) is one.
  expect(await Promise.all(runs)).toEqual(new Array(24).fill(256 * 256));
  for (const { backend, executable } of ranks) {
    executable.dispose();
    backend.dispose();
  }
});

test("the memory of an isolated backend is given back", async () => {
  const backend = createNativeBackend({ isolated: true, threads: 2 });
  const bytes = 256 * 2 ** 20;
  const row = leaf("row", "input", [1, 2 ** 14], "f32");
  const column = leaf("column", "input", [2 ** 14, 1], "f32");
  const large = add(broadcast(row, [2 ** 12, 2 ** 14]), 1);
  const executable = backend.compile(buildGraph("large", [{ name: "y", value: matmul(large, column) }]));
  const memory = {
    row: new Float32Array(2 ** 14),
    column: new Float32Array(2 ** 14),
    y: new Float32Array(2 ** 12),
  };
  const before = process.memoryUsage.rss();
  await executable.run(memory);
  const during = process.memoryUsage.rss();
  executable.dispose();
  backend.dispose();
  expect(during - before).toBeGreaterThan(0.9 * bytes);
  expect(process.memoryUsage.rss() - before).toBeLessThan(0.1 * bytes);
});

test("a program that is disposed while it runs comes to its end", async () => {
  const backend = createNativeBackend({ isolated: true, threads: 1 });
  const executable = backend.compile(buildGraph("product", [{ name: "y", value: matmul(x, x) }]));
  const bindings = { x: new Float32Array(256 * 256).fill(1), y: new Float32Array(256 * 256) };
  const runs = [executable.run(bindings), executable.run(bindings)];
  executable.dispose();
  backend.dispose();
  await Promise.all(runs);
  expect(bindings.y).toEqual(new Float32Array(256 * 256).fill(256));
  expect(() => backend.compile(buildGraph("late", [{ name: "y", value: matmul(x, x) }]))).toThrow(
    /context was released/,
  );
});

test("a process can exit while programs run", () => {
  const script = `
    import { createNativeBackend } from "./src/runtime/native/backend.ts";
    import { leaf, matmul } from "./src/graph/build.ts";
    import { buildGraph } from "./src/graph/graph.ts";
    const x = leaf("x", "input", [512, 512], "f32");
    const memory = new Float32Array(512 * 512);
    for (let rank = 0; rank < 4; rank++) {
      const backend = createNativeBackend({ isolated: rank > 0, threads: 2 });
      const executable = backend.compile(buildGraph("product", [{ name: "y", value: matmul(x, x) }]));
      for (let run = 0; run < 5; run++) void executable.run({ x: memory, y: backend.allocate("f32", 512 * 512) });
    }
    setTimeout(() => process.exit(7), 5);
  `;
  const run = () =>
    execFileSync(process.execPath, ["--input-type=module", "--eval", script], { stdio: "pipe" });
  expect(run).toThrow(expect.objectContaining({ status: 7, signal: null }));
});
