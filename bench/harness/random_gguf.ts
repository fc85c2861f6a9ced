import { createCipheriv, createHash } from "node:crypto";
import { toBf16Bits, toF16Bits } from "../../src/base/dtype.ts";
import { type GgufEntry, type GgufSource, tensorBytes, writeGguf } from "../../src/checkpoint/gguf/index.ts";

/** The sizes of a Llama with grouped heads and an output projection of its own. */
export interface GroupedLlamaShape {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly groups: number;
  readonly ffn: number;
  /** At least 1100, so that it holds the bytes, the characters and some words. */
  readonly vocabulary: number;
  readonly positions: number;
}

/** The model of issue 3's serving bars: 246 million parameters. */
export const llama246M: GroupedLlamaShape = {
  dim: 1024,
  layers: 16,
  heads: 16,
  groups: 4,
  ffn: 2816,
  vocabulary: 32000,
  positions: 8192,
};

/** The types that matrices can be written in. */
export type RandomType = "Q8_0" | "Q4_0" | "BF16" | "F32";

/** Standard deviation of the weights: hidden states of size 1 give logits of about size 1. */
const deviation = 0.02;

/** Bytes made at a time. A multiple of the blocks of every type. */
const pieceBytes = 34 * 18 * 2048;

/**
 * Writes a Llama with random weights and a SentencePiece vocabulary as a GGUF file: the same bytes for the same
 * arguments. Norms are 1 in F32, all matrices of the one type.
 */
export async function writeRandomGguf(
  path: string,
  shape: GroupedLlamaShape,
  type: RandomType,
  seed = 1,
): Promise<{ readonly bytes: number }> {
  const { dim, layers, heads, groups, ffn, vocabulary } = shape;
  const headSize = dim / heads;
  const matrix = (name: string, rows: number, columns: number): GgufSource => ({
    name,
    type,
    shape: [rows, columns],
    data: () => randomPieces(type, rows * columns, `${seed} ${name}`),
  });
  const norm = (name: string): GgufSource => ({
    name,
    type: "F32",
    shape: [dim],
    data: () => new Uint8Array(new Float32Array(dim).fill(1).buffer),
  });
  const tensors = [
    matrix("token_embd.weight", vocabulary, dim),
    ...Array.from({ length: layers }, (_, layer) => [
      norm(`blk.${layer}.attn_norm.weight`),
      matrix(`blk.${layer}.attn_q.weight`, dim, dim),
      matrix(`blk.${layer}.attn_k.weight`, groups * headSize, dim),
      matrix(`blk.${layer}.attn_v.weight`, groups * headSize, dim),
      matrix(`blk.${layer}.attn_output.weight`, dim, dim),
      norm(`blk.${layer}.ffn_norm.weight`),
      matrix(`blk.${layer}.ffn_gate.weight`, ffn, dim),
      matrix(`blk.${layer}.ffn_up.weight`, ffn, dim),
      matrix(`blk.${layer}.ffn_down.weight`, dim, ffn),
    ]).flat(),
    norm("output_norm.weight"),
    matrix("output.weight", vocabulary, dim),
  ];
  return await writeGguf(path, describe(shape, type), tensors);
}

/** Parameters of a model. */
export function parameterCount(shape: GroupedLlamaShape): number {
  const { dim, layers, heads, groups, ffn, vocabulary } = shape;
  const attention = 2 * dim * dim + 2 * dim * (dim / heads) * groups;
  return 2 * vocabulary * dim + layers * (attention + 3 * dim * ffn + 2 * dim) + dim;
}

const fileTypes: Readonly<Record<RandomType, number>> = { F32: 0, Q4_0: 2, Q8_0: 7, BF16: 32 };

function describe(shape: GroupedLlamaShape, type: RandomType): Map<string, GgufEntry> {
  const { tokens, types } = vocabularyOf(shape.vocabulary);
  const uint32 = (value: number): GgufEntry => ({ type: "uint32", value });
  return new Map<string, GgufEntry>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["general.name", { type: "string", value: "random" }],
    ["general.file_type", uint32(fileTypes[type])],
    ["general.quantization_version", uint32(2)],
    ["llama.vocab_size", uint32(shape.vocabulary)],
    ["llama.context_length", uint32(shape.positions)],
    ["llama.embedding_length", uint32(shape.dim)],
    ["llama.block_count", uint32(shape.layers)],
    ["llama.feed_forward_length", uint32(shape.ffn)],
    ["llama.rope.dimension_count", uint32(shape.dim / shape.heads)],
    ["llama.rope.freq_base", { type: "float32", value: 10_000 }],
    ["llama.attention.head_count", uint32(shape.heads)],
    ["llama.attention.head_count_kv", uint32(shape.groups)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "float32", value: 1e-5 }],
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.pre", { type: "string", value: "default" }],
    ["tokenizer.ggml.tokens", { type: "strings", value: tokens }],
    ["tokenizer.ggml.scores", { type: "float32s", value: tokens.map((_, id) => -id) }],
    ["tokenizer.ggml.token_type", { type: "int32s", value: types }],
    ["tokenizer.ggml.bos_token_id", uint32(1)],
    ["tokenizer.ggml.eos_token_id", uint32(2)],
    ["tokenizer.ggml.unknown_token_id", uint32(0)],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: true }],
    ["tokenizer.ggml.add_eos_token", { type: "bool", value: false }],
  ]);
}

/** Three special tokens, the bytes, the printable characters, and words of one to four letters. */
function vocabularyOf(size: number): { readonly tokens: string[]; readonly types: number[] } {
  const tokens = ["<unk>", "<s>", "</s>"];
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  }
  const types: number[] = tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : 6));
  const add = (token: string): void => {
    if (tokens.length < size) tokens.push(token);
  };
  const mark = "\u2581";
  const letters = [..."etaoinshrdlucmfwypvbgkjqxz"];
  const words = (shorter: readonly string[]): string[] =>
    shorter.flatMap((word) => letters.map((letter) => word + letter));
  add(mark);
  for (let code = 33; code < 127; code++) add(String.fromCharCode(code));
  let longest = letters;
  for (let length = 1; tokens.length < size; length++) {
    if (length > 1) longest = words(longest);
    if (length > 1) longest.forEach(add);
    for (const word of longest) add(mark + word);
  }
  while (types.length < size) types.push(1);
  return { tokens, types };
}

/** Random elements of a type, piece by piece in the same memory. */
async function* randomPieces(type: RandomType, elements: number, seed: string): AsyncGenerator<Uint8Array> {
  const key = createHash("sha256").update(seed).digest();
  const stream = createCipheriv("aes-128-ctr", key.subarray(0, 16), key.subarray(16));
  const zeros = new Uint8Array(pieceBytes);
  const total = tensorBytes(type, elements);
  for (let start = 0; start < total; start += pieceBytes) {
    const bytes = Math.min(pieceBytes, total - start);
    yield shapedBytes(type, stream, zeros, bytes);
  }
}

function shapedBytes(
  type: RandomType,
  stream: ReturnType<typeof createCipheriv>,
  zeros: Uint8Array,
  bytes: number,
): Uint8Array {
  if (type === "Q8_0") return withScales(stream.update(zeros.subarray(0, bytes)), 34, deviation / 73.9);
  if (type === "Q4_0") return withScales(stream.update(zeros.subarray(0, bytes)), 18, deviation / 4.61);
  const wide = type === "F32" ? 2 : 1;
  const random = stream.update(zeros.subarray(0, bytes / wide));
  const indices = new Uint16Array(random.buffer, random.byteOffset, random.byteLength / 2);
  const values = normalTable();
  if (type === "F32") return new Uint8Array(Float32Array.from(indices, (index) => values[index]!).buffer);
  bf16Table ??= Uint16Array.from(values, toBf16Bits);
  const table = bf16Table;
  const result = new Uint16Array(indices.length);
  for (let i = 0; i < result.length; i++) result[i] = table[indices[i]!]!;
  return new Uint8Array(result.buffer);
}

/** Random bytes with one scale in front of every block: uniform numbers of the deviation that is wanted. */
function withScales(bytes: Uint8Array, blockBytes: number, scale: number): Uint8Array {
  const bits = toF16Bits(scale);
  for (let at = 0; at < bytes.length; at += blockBytes) {
    bytes[at] = bits & 255;
    bytes[at + 1] = bits >> 8;
  }
  return bytes;
}

let table: Float32Array | undefined;
let bf16Table: Uint16Array | undefined;

/** 65536 numbers whose distribution is normal: sums of uniform ones. */
function normalTable(): Float32Array {
  if (table !== undefined) return table;
  const uniform = createCipheriv("aes-128-ctr", new Uint8Array(16), new Uint8Array(16)).update(
    new Uint8Array(65536 * 12),
  );
  table = Float32Array.from({ length: 65536 }, (_, index) => {
    let sum = 0;
    for (let i = 0; i < 12; i++) sum += uniform[12 * index + i]! / 255 - 0.5;
    return sum * deviation;
  });
  return table;
}
