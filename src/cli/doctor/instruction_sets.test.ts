import { expect, test } from "vitest";
import { explainInstructionSets, parseProcessorFeatures } from "./instruction_sets.ts";

const avx2 = ["avx2", "fma", "f16c"];
const avx512 = [...avx2, "avx512f", "avx512bw", "avx512dq", "avx512vl"];
const bf16 = [...avx512, "avx512_bf16", "avx512_vnni"];
const amx = [...bf16, "amx_tile", "amx_bf16", "amx_int8"];

test("the features of the first processor are read", () => {
  const text =
    "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: other\n";
  expect([...parseProcessorFeatures(text)]).toEqual(["fpu", "avx2", "fma"]);
  expect([...parseProcessorFeatures("Features\t: fp asimd\n")]).toEqual(["fp", "asimd"]);
  expect(parseProcessorFeatures("nothing of the kind").size).toBe(0);
});

/** One line a level: `isa status: why`. */
function explain(
  detected: "scalar" | "avx2" | "avx512bf16" | "amx" | undefined,
  forced?: string,
  features?: string[],
) {
  return explainInstructionSets({
    architecture: "x64",
    detected,
    forced,
    features: features === undefined ? undefined : new Set(features),
  }).map(({ isa, status, why }) => `${isa} ${status}: ${why}`);
}

test("the highest level that the machine has is in use, and the absent ones name what is missing", () => {
  expect(explain("avx512bf16", undefined, bf16)).toEqual([
    "amx absent: the processor lacks amx_tile, amx_bf16, amx_int8",
    "avx512bf16 in use: the highest that this machine can run",
    "avx512 available: for kernels without a higher variant",
    "avx2 available: for kernels without a higher variant",
    "scalar available: for kernels without a higher variant",
  ]);
});

test("SLIPSTREAM_ISA lowers the level, and the explanation names it", () => {
  expect(explain("avx512bf16", "avx2", bf16).slice(1, 4)).toEqual([
    "avx512bf16 not allowed: SLIPSTREAM_ISA=avx2 is lower",
    "avx512 not allowed: SLIPSTREAM_ISA=avx2 is lower",
    "avx2 in use: SLIPSTREAM_ISA=avx2 asks for it",
  ]);
});

test("AMX without the operating system's permission is explained", () => {
  expect(explain("avx512bf16", undefined, amx)[0]).toBe(
    "amx absent: the processor has it, but the operating system does not grant its tile state",
  );
});

test("without the native code, nothing is claimed to be in use", () => {
  const lines = explain(undefined, undefined, avx2);
  expect(lines[0]).toContain("amx absent");
  expect(lines.filter((line) => line.includes("in use"))).toEqual([]);
  expect(lines).toContain("avx2 unknown: the processor has it");
});

test("systems without a list of features go by what native code detected", () => {
  expect(explain("avx2")[0]).toBe("amx absent: the processor does not report it");
  const arm = explainInstructionSets({
    architecture: "arm64",
    detected: "neon",
    forced: undefined,
    features: undefined,
  });
  expect(arm.map(({ isa, status }) => `${isa} ${status}`)).toEqual(["neon in use", "scalar available"]);
});
