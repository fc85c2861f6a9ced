import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { dtypes } from "../../base/dtype.ts";
import { symbolic } from "../../base/shape.ts";
import { planProgram } from "../../compiler/plan/plan.ts";
import { add, constant, leaf, matmul } from "../../graph/build.ts";
import { elementwiseOpcodes } from "../../graph/expression.ts";
import { apply, buildGraph } from "../../graph/graph.ts";
import {
  activations,
  isCollective,
  maximumLogprobs,
  opNames,
  samplingParameters,
  samplingSeeds,
} from "../../graph/ops.ts";
import { withScope } from "../../graph/scope.ts";
import { type IsaName, loadAddon } from "./addon.ts";
import { encodeProgram, stepKinds, storageCodes, version } from "./encode.ts";
import { collectiveKinds } from "./group.ts";

/** The numbers that TypeScript writes are those that the C++ headers read. */

function source(path: string): string {
  return readFileSync(new URL(`../../../native/${path}`, import.meta.url), "utf8").replaceAll(
    /\/\/.*$/gm,
    "",
  );
}

/** The constants of an `enum class`, in order, with their values. */
function enumeration(path: string, name: string): Record<string, number> {
  const body = new RegExp(`enum class ${name}\\b[^{]*\\{([^}]*)\\}`).exec(source(path));
  if (body === null) throw new Error(`no enum ${name} in ${path}`);
  const values: Record<string, number> = {};
  let next = 0;
  for (const part of body[1]!.split(",")) {
    const [constantName, value] = part.split("=").map((text) => text.trim());
    if (constantName === "" || constantName === undefined) continue;
    if (value !== undefined) next = Number(value);
    values[constantName] = next++;
  }
  return values;
}

const positions = (names: readonly string[]): Record<string, number> =>
  Object.fromEntries(names.map((name, index) => [name, index]));

test("dtypes", () => {
  expect(enumeration("core/tensor.h", "DType")).toEqual(positions(dtypes));
});

test("opcodes of map programs", () => {
  expect(enumeration("kernels/map/program.h", "Opcode")).toEqual(positions(elementwiseOpcodes));
});

test("where tensors are stored", () => {
  expect(enumeration("executor/program.h", "StorageKind")).toEqual(storageCodes);
});

test("the version of encoded programs", () => {
  const found = /kProgramVersion = (\d+)/.exec(source("executor/program.h"));
  expect(Number(found?.[1])).toBe(version);
});

test("kinds of steps and of collectives", () => {
  expect(enumeration("executor/program.h", "StepKind")).toEqual(positions(stepKinds));
  expect(enumeration("comm/group.h", "CollectiveKind")).toEqual(positions(collectiveKinds));
});

test("activations", () => {
  expect(enumeration("kernels/matmul/gemm.h", "Activation")).toEqual(positions(activations));
});

test("columns of the operands of sampling", () => {
  expect(enumeration("kernels/sampling/sampling.h", "SamplingParameter")).toEqual(
    positions(samplingParameters),
  );
  expect(enumeration("kernels/sampling/sampling.h", "SamplingSeed")).toEqual(positions(samplingSeeds));
  const found = /kMaximumLogprobs = (\d+)/.exec(source("kernels/sampling/sampling.h"));
  expect(Number(found?.[1])).toBe(maximumLogprobs);
});

test("every op of one rank that reaches programs has a kernel", () => {
  const kernels = new Set(
    loadAddon()
      .listKernels()
      .map(({ name }) => name),
  );
  const withoutStep = ["leaf", "constant", "reshape"];
  const asMap = ["elementwise", "cast", "broadcast"];
  const missing = opNames.filter(
    (op) => !withoutStep.includes(op) && !asMap.includes(op) && !isCollective(op) && !kernels.has(op),
  );
  expect(missing).toEqual([]);
  expect(kernels).toContain("store");
});

test("the words of a program are laid out as native/executor/program.h says", () => {
  const tokens = symbolic("tokens", 8);
  const x = leaf("x", "input", [tokens, 2], "f32");
  const product = matmul(x, constant([1, 2, 3, 4], [2, 2]));
  const graph = buildGraph("g", [{ name: "y", value: add(product, x) }]);
  const { words, kernels } = encodeProgram(planProgram(graph));
  expect(kernels).toEqual(["matmul", "map"]);
  // Tensors: x, the constant, the product in the arena, y.
  const header = [version, 1, 4, 2, 1, 0, 0, 0, 2, 64, 0, 8];
  const tensors = [
    [0, 2, 0, 2, 1, 0, 2, -1],
    [0, 3, 0, 2, 2, -1, 2, -1],
    [0, 0, 0, 2, 1, 0, 2, -1],
    [0, 2, 1, 2, 1, 0, 2, -1],
  ];
  const addOpcode = elementwiseOpcodes.indexOf("add");
  const steps = [
    [0, 0, 4, 0, 1, -1, -1, 1, 2, 4, 0, 0, 0, 0],
    [0, 1, 2, 2, 0, 1, 3, 6, 1, addOpcode, 0, 1, 0, 0],
  ];
  expect([...words]).toEqual([...header, ...tensors.flat(), ...steps.flat()]);
});

test("so are collectives", () => {
  const group = { axes: "data", size: 4, rank: 1 };
  const x = withScope("mixer", () =>
    apply("all_to_all", [leaf("x", "input", [8, 2], "f32")], { group, split: 0, concatenate: 1 }),
  );
  const y = apply("permute", [x], { group, offset: 3 });
  const { words, labels } = encodeProgram(planProgram(buildGraph("g", [{ name: "y", value: y }])));
  expect(labels).toEqual(["mixer", ""]);
  // Tensors: x, the exchanged in the arena, y. One group, two tickets, four steps.
  const header = [version, 0, 3, 2, 0, 1, 2, 0, 4, 64, 0];
  const tensors = [
    [0, 2, 0, 2, 8, -1, 2, -1],
    [0, 0, 0, 2, 2, -1, 8, -1],
    [0, 2, 1, 2, 2, -1, 8, -1],
  ];
  const [start, wait] = [1, 2];
  const [allToAll, permute] = [4, 5];
  const steps = [
    [start, 0, allToAll, 0, 1, 0, 1, 1, 0, 1, 0, 0],
    [wait, 0],
    [start, 0, permute, 1, 1, 1, 1, 2, 0, 0, 3, 1],
    [wait, 1],
  ];
  expect([...words]).toEqual([...header, ...tensors.flat(), ...steps.flat()]);
});

test("the addon refuses words that it cannot read", () => {
  const graph = buildGraph("g", [{ name: "y", value: add(leaf("x", "input", [2], "f32"), 1) }]);
  const { words, kernels } = encodeProgram(planProgram(graph));
  const addon = loadAddon();
  const isa: IsaName = "scalar";
  const context = addon.createContext(false);
  expect(() => addon.createProgram(context, words.with(0, version + 1), kernels, isa, [], [], [])).toThrow(
    /another program version/,
  );
  expect(() => addon.createProgram(context, words.slice(0, -1), kernels, isa, [], [], [])).toThrow(
    /ends too early/,
  );
  expect(() => addon.createProgram(context, Float64Array.of(...words, 0), kernels, isa, [], [], [])).toThrow(
    /left over/,
  );
  expect(() => addon.createProgram(context, words, ["matmull", "map"], isa, [], [], [])).toThrow(
    /no kernel "matmull"/,
  );
});
