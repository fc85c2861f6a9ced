/** How fast the 30M-parameter Llama writes one text, token by token, from its key/value cache. */
import { elementCount } from "../../src/base/shape.ts";
import { figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import { CachedDecoder, greedy, Model, weightBytes } from "../../src/models/index.ts";
import { interleave } from "../harness/interleave.ts";
import { LimitMeter, limitFigures } from "../harness/limits.ts";
import { buildLlama, llama30M } from "../harness/llama.ts";
import { type FloatDType, noise } from "../harness/tensors.ts";

const prompt = Array.from({ length: 16 }, (_, index) => (index * 97 + 5) % llama30M.vocabulary);
const written = 128;

/** A model of small random weights. */
function randomModel({ backend }: SuiteContext, dtype: FloatDType): Model {
  const llama = buildLlama(llama30M, dtype);
  const weights = new Map(
    [...llama.parameters.values()].map(({ name, shape }, index) => {
      // Between -1/16 and 1/16; norms near 1 are not needed for speed.
      const values = noise("f32", [elementCount(shape)], index + 1).data;
      const memory = backend.allocate(dtype, values.length);
      const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
      for (let i = 0; i < values.length; i++) {
        values[i]! /= 16;
        memory[i] = dtype === "bf16" ? bits[i]! >>> 16 : values[i]!;
      }
      return [name, memory] as const;
    }),
  );
  return new Model({ ...llama, weights, backend, dtype });
}

/** Writes greedily after the prompt; gives the tokens and the seconds of each but the prompt's. */
async function write(model: Model): Promise<{ ids: number[]; seconds: number[] }> {
  const decoder = new CachedDecoder(model, prompt.length + written);
  const ids: number[] = [];
  const seconds: number[] = [];
  let logits = await decoder.feed(prompt);
  for (let count = 0; count < written; count++) {
    ids.push(greedy(logits));
    const started = performance.now();
    if (count + 1 < written) logits = await decoder.feed([ids.at(-1)!]);
    seconds.push((performance.now() - started) / 1000);
  }
  decoder.dispose();
  return { ids, seconds: seconds.slice(0, -1) };
}

/**
 * @throws unless the whole text, computed at once without a cache, makes each token the likeliest or, where
 * bf16 rounds differently, one as likely but for 2% of the logits' size.
 */
async function check(model: Model, ids: readonly number[], dtype: FloatDType): Promise<void> {
  const logits = await model.forward([[...prompt, ...ids]]);
  const data = (await logits.data()) as Float32Array;
  const vocabulary = llama30M.vocabulary;
  for (const [index, id] of ids.entries()) {
    const start = (prompt.length + index - 1) * vocabulary;
    const row = data.subarray(start, start + vocabulary);
    const largest = row[greedy(row)]!;
    const slack = (dtype === "f32" ? 1e-4 : 2e-2) * Math.abs(largest);
    if (largest - row[id]! <= slack) continue;
    throw new Error(`token ${index}, ${id}, is not the likeliest: logit ${row[id]!}, the largest ${largest}`);
  }
}

export const run: RunSuite = async (context) => {
  for (const dtype of ["bf16", "f32"] as const) {
    const model = randomModel(context, dtype);
    const { ids } = await write(model);
    await check(model, ids, dtype);
    const meter = new LimitMeter(context.machine);
    const writer = { name: "tokens", run: async () => (await write(model)).seconds };
    const { spreads, failures } = await interleave([writer], {
      rounds: 3,
      seconds: 0,
      between: meter.sample,
    });
    for (const [, reason] of failures) throw new Error(reason);
    const token = spreads.get("tokens")!;
    const bytes = weightBytes(model.parts.parameters, dtype);
    // A token reads one row of the embedding and every other weight once.
    const read = (bytes * (1 - (llama30M.dim * llama30M.vocabulary) / elementsOf(model))) / token.median;
    context.report({
      name: `${dtype}, ${elementsOf(model)} parameters, ${written} tokens after ${prompt.length}`,
      figures: [
        figure("time of a token", "seconds", token),
        figure("speed", "tokens/s", 1 / token.median),
        figure("weights read", "bytes/s", read),
        ...limitFigures(context.machine, meter.limits),
      ],
      bars: [],
      notes: [],
    });
  }
};

function elementsOf(model: Model): number {
  return [...model.parts.parameters.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
}
