/**
 * Answers several requests at once, without HTTP: `node examples/serve.ts [MODEL]`. The model is the quickstart's by
 * default; a .gguf file will do.
 */
import { Engine } from "slipstream/serve";

const path = process.argv[2] ?? "runs/quickstart/model";
const engine = await Engine.load(path, { precision: "bf16", cacheBytes: 64 * 2 ** 20 });

// Three requests share every step of the engine: the weights are read once for all of them.
const prompts = ["The whale", "Call me", "The captain"];
const answers = await Promise.all(
  prompts.map(async (prompt) => {
    let text = "";
    for await (const piece of engine.generate({ prompt, maxTokens: 40, temperature: 0.7, seed: 1 })) {
      text += piece.text;
    }
    return text;
  }),
);
for (const [index, prompt] of prompts.entries()) console.log(`${prompt}|${answers[index]}\n`);

// A request ends when its signal says so, or when nobody iterates any more.
const stop = new AbortController();
let pieces = 0;
for await (const piece of engine.generate({ prompt: "Ishmael", maxTokens: 200, signal: stop.signal })) {
  process.stdout.write(piece.text);
  if (++pieces === 10) stop.abort();
  if (piece.finishReason !== undefined) console.log(`\n(${piece.finishReason})`);
}
await engine.dispose();
