/** What each way of keeping weights costs in time: one model in bf16, int8 and int4, in turn. */
import { figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import type { LoadOptions } from "../../src/models/index.ts";
import { interleave } from "../harness/interleave.ts";
import { servingFile } from "../harness/serving_model.ts";
import { decodeSteps, type MeasuredEngine, openEngine, someTokens, write } from "./engines.ts";

const ways: readonly { readonly name: string; readonly options: LoadOptions }[] = [
  { name: "float32", options: { precision: "f32" } },
  { name: "bf16", options: { precision: "bf16" } },
  { name: "int8 (W8A8)", options: { precision: "bf16", quantization: { kind: "int8" } } },
  {
    name: "int4, groups of 32 (W4A8)",
    options: { precision: "bf16", quantization: { kind: "int4", group: 32 } },
  },
  {
    name: "int4, groups of 128 (W4A8)",
    options: { precision: "bf16", quantization: { kind: "int4", group: 128 } },
  },
];

const prompt = 512;

/** Reading a prompt and writing one stream, for each way. */
export async function measurePrecisions(context: SuiteContext): Promise<void> {
  const file = await servingFile("BF16");
  const opened: { name: string; measured: MeasuredEngine }[] = [];
  try {
    for (const { name, options } of ways) {
      opened.push({
        name,
        measured: await openEngine(context, file, { ...options, maximumSequences: 1, maximumContext: 1024 }),
      });
    }
    let asked = 0;
    const read = async (measured: MeasuredEngine): Promise<number[]> => {
      const started = performance.now() / 1000;
      const { times } = await write(measured.engine, someTokens(8000 + asked++, prompt), 1);
      return [times[0]! - started];
    };
    const prompts = await interleave(
      opened.map(({ name, measured }) => ({ name, run: () => read(measured) })),
      { rounds: 4, seconds: 0 },
    );
    const steps = await interleave(
      opened.map(({ name, measured }) => ({ name, run: () => decodeSteps(measured, 1, 64, 24) })),
      { rounds: 4, seconds: 0 },
    );
    for (const [name, reason] of [...prompts.failures, ...steps.failures])
      throw new Error(`${name}: ${reason}`);
    context.report({
      name: `246M parameters kept in other numbers: a prompt of ${prompt} tokens, and one stream`,
      figures: ways.flatMap(({ name }) => [
        figure(`${name}: prompt`, "tokens/s", prompt / prompts.spreads.get(name)!.median),
        figure(`${name}: time of a decode step`, "seconds", steps.spreads.get(name)!),
      ]),
      bars: [],
      notes: ["for perplexities see the quantization of trained models"],
    });
  } finally {
    for (const { measured } of opened) await measured.close();
  }
}
