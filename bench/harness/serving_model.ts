/** The model of the serving benchmarks, a Llama of 246 million random parameters, as GGUF files. */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GroupedLlamaShape, llama246M, type RandomType, writeRandomGguf } from "./random_gguf.ts";

/** Weights that a token reads: all but the embedding, of which it reads a row. */
export function weightsRead(): number {
  const { dim, layers, heads, groups, ffn, vocabulary } = llama246M;
  const attention = dim * dim * (2 + (2 * groups) / heads);
  return layers * (attention + 3 * dim * ffn) + dim * vocabulary;
}

/** Bits of a weight in a file, scales included. */
export const bitsOf: Readonly<Record<RandomType, number>> = { Q8_0: 8.5, Q4_0: 4.5, BF16: 16, F32: 32 };

/** The file of a type, written where it is not there yet. */
export function servingFile(type: RandomType): Promise<string> {
  return writtenOnce(`llama-246m-${type.toLowerCase()}`, llama246M, type);
}

/** A model of 28 million parameters in float32, for what must be equal token for token. */
export function exactFile(): Promise<string> {
  const shape = { dim: 512, layers: 8, heads: 8, groups: 2, ffn: 1408, vocabulary: 4096, positions: 2048 };
  return writtenOnce("llama-28m-f32", shape, "F32");
}

async function writtenOnce(name: string, shape: GroupedLlamaShape, type: RandomType): Promise<string> {
  const folder = join(tmpdir(), "slipstream-bench");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.gguf`);
  if (existsSync(file)) return file;
  await writeRandomGguf(`${file}.part`, shape, type);
  renameSync(`${file}.part`, file);
  return file;
}
