import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type RandomType, writeRandomGguf } from "../../bench/harness/random_gguf.ts";
import { createNativeBackend } from "../../src/backends.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import type { TensorTypeName } from "../../src/checkpoint/gguf/index.ts";
import { runConvert } from "../../src/cli/convert/run.ts";
import { trainTokenizer } from "../../src/data/index.ts";
import {
  familyOf,
  generate,
  loadModelTokenizer,
  loadModelWith,
  saveModelFolder,
} from "../../src/models/index.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";

/**
 * GGUF files that Slipstream writes, held against node-llama-cpp (llama.cpp) in the same process: the same token
 * ids of texts, the same greedy tokens, and log-probabilities within a tolerance. Skipped where the peer is not
 * installed: `npm --prefix bench/peers run setup`.
 */
const peerEntry = new URL("../../bench/peers/node_modules/node-llama-cpp/dist/index.js", import.meta.url);
const folder = mkdtempSync(join(tmpdir(), "slipstream-gguf-peer-"));
afterAll(() => rmSync(folder, { recursive: true }));
const backend = createNativeBackend();

/** The part of node-llama-cpp's interface that is used. */
interface Peer {
  loadModel(options: object): Promise<PeerModel>;
  dispose(): Promise<void>;
}
interface PeerModel {
  tokenize(text: string, special: boolean): number[];
  createContext(options: object): Promise<{ getSequence(): PeerSequence; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}
interface PeerSequence {
  evaluateWithMetadata(
    tokens: readonly number[],
    metadata: object,
    options: object,
  ): AsyncIterable<{ token: number; probabilities: Map<number, number> }>;
}

/** What the peer makes of a file: greedy tokens, and the log-probabilities after the prompt. */
async function askPeer(
  peer: Peer,
  path: string,
  prompt: readonly number[],
  count: number,
): Promise<{ ids: number[]; logProbabilities: Map<number, number> }> {
  const model = await peer.loadModel({ modelPath: path, gpuLayers: 0 });
  try {
    const context = await model.createContext({ contextSize: 256, batchSize: 256, threads: 1 });
    const ids: number[] = [];
    let first = new Map<number, number>();
    const results = context
      .getSequence()
      .evaluateWithMetadata(prompt, { probabilities: true }, { temperature: 0, yieldEogToken: true });
    for await (const { token, probabilities } of results) {
      if (ids.length === 0) first = new Map([...probabilities].map(([id, p]) => [id, Math.log(p)]));
      ids.push(token);
      if (ids.length >= count) break;
    }
    return { ids, logProbabilities: first };
  } finally {
    await model.dispose();
  }
}

async function ask(path: string, prompt: readonly number[], count: number, dequantize = false) {
  const model = await loadModelWith(backend, path, { dequantize });
  const ids: number[] = [];
  for await (const id of generate(model, prompt, { maxTokens: count })) ids.push(id);
  const { vocabularySize } = model.facts;
  const logits = await (await model.forward([prompt])).data();
  const last = Float64Array.from(logits.subarray(logits.length - vocabularySize));
  const largest = Math.max(...last);
  const sum = last.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return { ids, logProbabilities: last.map((logit) => logit - largest - Math.log(sum)) };
}

/** The largest difference of log-probabilities, over the spread of the expected ones. */
function difference(ours: Float64Array, theirs: ReadonlyMap<number, number>): number {
  const values = [...theirs.values()].filter(Number.isFinite);
  const spread = Math.max(...values) - Math.min(...values);
  let most = 0;
  for (const [id, value] of theirs)
    if (Number.isFinite(value)) most = Math.max(most, Math.abs(ours[id]! - value));
  return most / spread;
}

const text = "Once upon a time, there was a  little girl: Lily's 1234 dogs!\n\nÜnïcode 世界 🙂\tdon't stop";

describe.skipIf(!existsSync(peerEntry))(
  "GGUF files against node-llama-cpp (skipped where it is not installed)",
  () => {
    let peer: Peer;
    beforeAll(async () => {
      const { getLlama } = (await import(fileURLToPath(peerEntry))) as {
        getLlama(options: object): Promise<Peer>;
      };
      peer = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
    });
    afterAll(async () => {
      await peer?.dispose();
    });

    async function peerTokens(path: string, sample: string): Promise<number[]> {
      const model = await peer.loadModel({ modelPath: path, gpuLayers: 0 });
      try {
        return [...model.tokenize(sample, false)];
      } finally {
        await model.dispose();
      }
    }

    /** A folder with a tiny random model of a family and a byte-level tokenizer. */
    async function randomFolder(name: string, config: Record<string, unknown>): Promise<string> {
      const target = join(folder, name);
      const tokenizer = await trainTokenizer([text, text], { vocabularySize: 320 });
      const full = {
        hidden_size: 64,
        intermediate_size: 160,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        vocab_size: 320,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000,
        tie_word_embeddings: false,
        ...config,
      };
      const family = familyOf(full, "test");
      const space = ParameterSpace.create("f32");
      family.build(full, space, "test");
      const random = new PhiloxStream(11);
      const deviation = 1.2 / Math.sqrt(full.hidden_size);
      const values = new Map(
        [...space.table.values()].map(({ name: parameter, shape }) => {
          const size = shape.reduce((product, dimension) => product * dimension, 1);
          const isNorm = shape.length === 1 && !parameter.endsWith("bias");
          const draw = (): number =>
            isNorm ? 1 + 0.2 * random.nextNormal() : deviation * random.nextNormal();
          return [parameter, Float32Array.from({ length: size }, draw)] as const;
        }),
      );
      await saveModelFolder(
        target,
        { family, config: full, parameters: space.table, valuesOf: (key) => values.get(key)!, dtype: "f32" },
        async (temporary) => {
          for (const [file, content] of Object.entries(tokenizer.files))
            writeFileSync(join(temporary, file), content);
        },
      );
      return target;
    }

    test.each([
      ["llama", { model_type: "llama" }],
      [
        "llama with Llama 3's scaling, tied",
        {
          model_type: "llama",
          tie_word_embeddings: true,
          rope_scaling: {
            rope_type: "llama3",
            factor: 8,
            low_freq_factor: 1,
            high_freq_factor: 4,
            original_max_position_embeddings: 64,
          },
        },
      ],
      [
        "llama with linear scaling",
        { model_type: "llama", rope_scaling: { rope_type: "linear", factor: 2 } },
      ],
      ["qwen2", { model_type: "qwen2" }],
      ["qwen3", { model_type: "qwen3", head_dim: 32 }],
      [
        "gpt2",
        {
          model_type: "gpt2",
          n_embd: 64,
          n_head: 4,
          n_layer: 2,
          n_positions: 128,
          vocab_size: 320,
          tie_word_embeddings: true,
        },
      ],
    ])("%s: the same greedy tokens in F32", async (name, config) => {
      const source = await randomFolder(name, config);
      const path = join(folder, `${name}.gguf`);
      await runConvert({ source, target: path, type: "f32", tokenizer: true });
      const tokenizer = await loadModelTokenizer(path);
      const prompt = tokenizer.encode("Once upon a time");
      const theirs = await askPeer(peer, path, prompt, 24);
      const ours = await ask(path, prompt, 24);
      expect(difference(ours.logProbabilities, theirs.logProbabilities)).toBeLessThan(1e-3);
      expect(ours.ids).toEqual(theirs.ids);
      expect(await peerTokens(path, text)).toEqual(tokenizer.encode(text, { addSpecialTokens: false }));
    });

    test.each<[TensorTypeName, number]>([
      ["F16", 0.002],
      ["BF16", 0.01],
      ["Q8_0", 0.03],
      ["Q4_0", 0.03],
      ["Q4_K", 0.06],
      ["Q5_K", 0.06],
      ["Q6_K", 0.06],
    ])("%s: log-probabilities, computed in floats and in integers", async (type, tolerance) => {
      const source = await randomFolder(`wide ${type}`, {
        model_type: "llama",
        hidden_size: 256,
        intermediate_size: 512,
      });
      const target = join(folder, `wide-${type}.gguf`);
      const wanted = type.toLowerCase() as "q8_0";
      await runConvert({ source, target, type: wanted, tokenizer: true });
      const prompt = [3, 100, 200, 17, 250, 31, 8, 90];
      const theirs = await askPeer(peer, target, prompt, 4);
      const floats = await ask(target, prompt, 1, true);
      const integers = await ask(target, prompt, 1);
      // The peer rounds activations to int8 too where weights are quantized, in groups of 32, or of 256 for Q_K.
      expect(difference(floats.logProbabilities, theirs.logProbabilities)).toBeLessThan(tolerance);
      expect(difference(integers.logProbabilities, theirs.logProbabilities)).toBeLessThan(tolerance);
    });

    test.each<RandomType>(["Q8_0", "Q4_0", "BF16", "F32"])(
      "the benchmark's random model, %s",
      async (type) => {
        const path = join(folder, `random-${type}.gguf`);
        const shape = {
          dim: 128,
          layers: 2,
          heads: 4,
          groups: 2,
          ffn: 256,
          vocabulary: 2000,
          positions: 256,
        };
        await writeRandomGguf(path, shape, type);
        const tokenizer = await loadModelTokenizer(path);
        for (const sample of [text, "hello world", "", " a  b"]) {
          expect(tokenizer.encode(sample, { addSpecialTokens: false })).toEqual(
            await peerTokens(path, sample),
          );
        }
        const prompt = tokenizer.encode("hello world");
        const theirs = await askPeer(peer, path, prompt, 4);
        const ours = await ask(path, prompt, 4);
        expect(difference(ours.logProbabilities, theirs.logProbabilities)).toBeLessThan(0.03);
      },
    );

    const story = fileURLToPath(new URL("../../../shared/data/stories260K", import.meta.url));
    test.skipIf(!existsSync(story))("stories260K: the published story in F32", async () => {
      const path = join(folder, "stories.gguf");
      await runConvert({ source: story, target: path, type: "f32", tokenizer: true });
      const golden = JSON.parse(
        readFileSync(fileURLToPath(new URL("../golden/stories260K/golden.json", import.meta.url)), "utf8"),
      ) as { greedy: { ids: number[] } };
      const count = golden.greedy.ids.length;
      expect((await askPeer(peer, path, [1], count)).ids).toEqual(golden.greedy.ids);
      expect((await ask(path, [1], count)).ids).toEqual(golden.greedy.ids);
      const tokenizer = await loadModelTokenizer(path);
      expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(await peerTokens(path, text));
    });
  },
);
