/** The model of the serving benchmarks: a Llama of 246 million random parameters, written as GGUF files. */
import { existsSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RandomGgufType, writeRandomGguf } from "./random_gguf.ts";

/** Its sizes. */
export const servingShape = {
  dim: 1024,
  layers: 16,
  heads: 16,
  groups: 4,
  ffn: 2816,
  vocabulary: 32_000,
  context: 8192,
} as const;

/** Weights that a token reads: all but the embedding, of which it reads a row. */
export function weightsRead(): number {
  const { dim, layers, heads, groups, ffn, vocabulary } = servingShape;
  const attention = dim * dim * (2 + (2 * groups) / heads);
  return layers * (attention + 3 * dim * ffn) + dim * vocabulary;
}

/** Bits of a weight in a file, scales included. */
export const bitsOf: Readonly<Record<RandomGgufType, number>> = { q8_0: 8.5, q4_0: 4.5, bf16: 16, f32: 32 };

/** The file of a type, written where it is not there yet. */
export async function servingFile(type: RandomGgufType): Promise<string> {
  const folder = join(tmpdir(), "slipstream-bench");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `llama-246m-${type}.gguf`);
  if (!existsSync(file)) await writeRandomGguf(file, { ...servingShape, type, seed: 1 });
  return file;
}
