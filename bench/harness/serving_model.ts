/** The model of the serving benchmarks, a Llama of 246 million random parameters, as GGUF files. */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { llama246M, type RandomType, writeRandomGguf } from "./random_gguf.ts";

/** Weights that a token reads: all but the embedding, of which it reads a row. */
export function weightsRead(): number {
  const { dim, layers, heads, groups, ffn, vocabulary } = llama246M;
  const attention = dim * dim * (2 + (2 * groups) / heads);
  return layers * (attention + 3 * dim * ffn) + dim * vocabulary;
}

/** Bits of a weight in a file, scales included. */
export const bitsOf: Readonly<Record<RandomType, number>> = { Q8_0: 8.5, Q4_0: 4.5, BF16: 16, F32: 32 };

/** The file of a type, written where it is not there yet. */
export async function servingFile(type: RandomType): Promise<string> {
  const folder = join(tmpdir(), "slipstream-bench");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `llama-246m-${type.toLowerCase()}.gguf`);
  if (existsSync(file)) return file;
  await writeRandomGguf(`${file}.part`, llama246M, type);
  renameSync(`${file}.part`, file);
  return file;
}
