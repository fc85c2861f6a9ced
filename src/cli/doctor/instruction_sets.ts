import type { IsaName } from "../../runtime/native/addon.ts";

/** Levels of an architecture, lowest first, with the processor features (as Linux names them) each adds. */
const levels: Record<"x64" | "arm64", readonly { isa: IsaName; features: readonly string[] }[]> = {
  x64: [
    { isa: "scalar", features: [] },
    { isa: "avx2", features: ["avx2", "fma", "f16c"] },
    { isa: "avx512", features: ["avx512f", "avx512bw", "avx512dq", "avx512vl"] },
    { isa: "avx512bf16", features: ["avx512_bf16", "avx512_vnni"] },
    { isa: "amx", features: ["amx_tile", "amx_bf16", "amx_int8"] },
  ],
  arm64: [
    { isa: "scalar", features: [] },
    { isa: "neon", features: ["asimd"] },
  ],
};

/** What is known before the levels are explained. */
export interface InstructionSetFacts {
  /** `process.arch`. */
  readonly architecture: string;
  /** The highest level that native code found; undefined where the addon does not load. */
  readonly detected: IsaName | undefined;
  /** The value of SLIPSTREAM_ISA. */
  readonly forced: string | undefined;
  /** Features of the processor, where the operating system lists them. */
  readonly features: ReadonlySet<string> | undefined;
}

/** One level: whether kernels use it, and why or why not. */
export interface InstructionSetLevel {
  readonly isa: IsaName;
  readonly status: "in use" | "available" | "not allowed" | "absent" | "unknown";
  readonly why: string;
}

/** The features in the text of `/proc/cpuinfo`: the flags of its first processor. */
export function parseProcessorFeatures(text: string): Set<string> {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? "";
  return new Set(line.split(/\s+/).filter((feature) => feature !== ""));
}

/** The features that every level from scalar to AMX asks for, present or not. */
export function relevantFeatures(
  architecture: string,
  features: ReadonlySet<string>,
): Record<string, boolean> {
  const wanted = levelsOf(architecture).flatMap((level) => level.features);
  return Object.fromEntries(wanted.map((feature) => [feature, features.has(feature)]));
}

function levelsOf(architecture: string): readonly { isa: IsaName; features: readonly string[] }[] {
  if (architecture === "x64" || architecture === "arm64") return levels[architecture];
  return [{ isa: "scalar", features: [] }];
}

/** Every level of this architecture, highest first, and why each is used or not. */
export function explainInstructionSets(facts: InstructionSetFacts): InstructionSetLevel[] {
  const { architecture, detected, forced, features } = facts;
  const ordered = levelsOf(architecture);
  const rank = (isa: string | undefined): number => ordered.findIndex((level) => level.isa === isa);
  const detectedRank = rank(detected);
  const forcedRank = rank(forced);
  const limit = forcedRank >= 0 && forcedRank <= detectedRank ? forcedRank : detectedRank;
  return ordered
    .map(({ isa, features: needed }, index): InstructionSetLevel => {
      const missing = features === undefined ? [] : needed.filter((feature) => !features.has(feature));
      if (missing.length > 0) {
        return { isa, status: "absent", why: `the processor lacks ${missing.join(", ")}` };
      }
      if (detected === undefined) {
        const why =
          features === undefined ? "not known before the native code is built" : "the processor has it";
        return { isa, status: "unknown", why };
      }
      if (index > detectedRank) return { isa, status: "absent", why: absentWithFeatures(isa, features) };
      if (index > limit) return { isa, status: "not allowed", why: `SLIPSTREAM_ISA=${forced} is lower` };
      if (index < limit) return { isa, status: "available", why: "for kernels without a higher variant" };
      const why =
        limit === forcedRank
          ? `SLIPSTREAM_ISA=${forced} asks for it`
          : "the highest that this machine can run";
      return { isa, status: "in use", why };
    })
    .reverse();
}

/** Why a level is absent although the processor's features do not say so. */
function absentWithFeatures(isa: IsaName, features: ReadonlySet<string> | undefined): string {
  if (features === undefined) return "the processor does not report it";
  if (isa === "amx") return "the processor has it, but the operating system does not grant its tile state";
  return "the processor has it, but a level below it or the operating system's support is missing";
}
