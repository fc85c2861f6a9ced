/** The library: the engine in process, as a program that imports `slipstream/serve` has it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { loadModel } from "../../../src/index.ts";
import { Engine, type EngineLoadOptions, RequestError, serve } from "../../../src/serve.ts";
import { root } from "../support.ts";
import { type Completion, eventually, prompts, ServingPlace } from "./support.ts";

let place: ServingPlace;
let engine: Engine | undefined;

beforeAll(async () => {
  place = await ServingPlace.create();
});
afterEach(async () => {
  await engine?.dispose();
  engine = undefined;
});
afterAll(() => place.close());

async function start(options: EngineLoadOptions = {}): Promise<Engine> {
  engine = await Engine.load(place.path(place.trained), options);
  return engine;
}

const prompt = prompts[2]!;

/** Every block is free. */
function idle({ statistics: { running, waiting, cacheUsage } }: Engine): boolean {
  return running === 0 && waiting === 0 && cacheUsage === 0;
}

// The package is compiled where all tests run; a single file may run without.
test.skipIf(!existsSync(join(root, "dist/serve.js")))("a program that has the package", async () => {
  const program = `
    import { Engine, serve } from "slipstream/serve";
    const engine = await Engine.load(process.argv[1]);
    const request = { prompt: ${JSON.stringify(prompt)}, maxTokens: 8, temperature: 0 };
    for await (const piece of engine.generate(request)) process.stdout.write(piece.text);
    const server = await serve(engine, { port: 0, logLevel: "none" });
    process.stdout.write("|" + (await fetch(server.url + "/health")).status);
    await server.close();
    await engine.dispose();
  `;
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", program, place.path(place.trained)],
    // Within the package its own name means itself.
    { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
  );
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (piece: string) => {
    output += piece;
  });
  expect(await once(child, "close")).toEqual([0, null]);
  expect(output).toBe(`${(await place.generate(prompt, 8)).text}|200`);
});

test("pieces of an answer come one by one, and are what generate says", async () => {
  const running = await start();
  const expected = await place.generate(prompt, 30);
  let text = "";
  const tokens: number[] = [];
  let last: string | undefined;
  let pieces = 0;
  for await (const piece of running.generate({ prompt, maxTokens: 30, temperature: 0 })) {
    pieces++;
    text += piece.text;
    tokens.push(...piece.tokens);
    last = piece.finishReason;
  }
  expect({ ids: tokens, text }).toMatchObject({ ids: expected.ids, text: expected.text });
  expect(last).toBe("length");
  expect(pieces).toBeGreaterThan(5);
  expect(idle(running)).toBe(true);
});

test("log-probabilities are those of model.forward", async () => {
  const running = await start({ tokenBudget: 16, blockSize: 4, maximumSequences: 4 });
  const request = { prompt: `${prompt} the `.repeat(6), maxTokens: 12, temperature: 0, logprobs: 2 };
  const generation = running.generate(request);
  const tokens: number[] = [];
  const chosen: number[] = [];
  for await (const piece of generation) {
    tokens.push(...piece.tokens);
    chosen.push(...piece.logprobs!.map(({ logprob }) => logprob));
  }
  const model = await loadModel(place.path(place.trained), { precision: "f32" });
  const ids = [...generation.prompt, ...tokens];
  const logits = await (await model.forward([ids])).data();
  const vocabulary = logits.length / ids.length;
  for (const [index, token] of tokens.entries()) {
    const start = (generation.prompt.length + index - 1) * vocabulary;
    const row = Array.from(logits.subarray(start, start + vocabulary));
    const most = Math.max(...row);
    const total = row.reduce((sum, value) => sum + Math.exp(value - most), 0);
    expect(row.indexOf(most)).toBe(token);
    expect(chosen[index]).toBeCloseTo(row[token]! - most - Math.log(total), 4);
  }
  expect(tokens).toHaveLength(12);
});

test("an AbortSignal, or leaving the loop, frees the request's blocks; others go on", async () => {
  const running = await start({ maximumSequences: 4, prefixCaching: false });
  const controller = new AbortController();
  const long = { prompt, maxTokens: 400, temperature: 0, ignoreEos: true };
  const expected = await place.generate(prompt, 50);
  const consume = async (signal?: AbortSignal): Promise<{ tokens: number[]; reason: string | undefined }> => {
    const tokens: number[] = [];
    let reason: string | undefined;
    const request = { ...long, ...(signal === undefined ? { maxTokens: 50 } : { signal }) };
    for await (const piece of running.generate(request)) {
      tokens.push(...piece.tokens);
      reason = piece.finishReason;
      if (signal !== undefined && tokens.length >= 5) controller.abort();
    }
    return { tokens, reason };
  };
  const [cut, whole] = await Promise.all([consume(controller.signal), consume()]);
  expect(cut.reason).toBe("abort");
  expect(cut.tokens.length).toBeLessThan(400);
  expect(expected.ids.slice(0, cut.tokens.length)).toEqual(cut.tokens.slice(0, 50));
  expect(whole).toEqual({ tokens: expected.ids, reason: "length" });

  let seen = 0;
  for await (const { tokens } of running.generate(long)) {
    seen += tokens.length;
    if (seen >= 3) break;
  }
  await eventually("every block is free", () => idle(running));

  const gone = running.generate({ ...long, signal: AbortSignal.abort() });
  const reasons: unknown[] = [];
  for await (const { finishReason } of gone) reasons.push(finishReason);
  expect(reasons).toEqual(["abort"]);
  await eventually("every block is free", () => idle(running));
});

test("what cannot run is refused at once, with what is wrong", async () => {
  const running = await start({ maximumContext: 64 });
  expect(() => running.generate({ prompt, maxTokens: 100 })).toThrow(RequestError);
  expect(() => running.generate({ prompt, maxTokens: 100 })).toThrow("the model's context is 64 tokens");
  expect(() => running.generate({ prompt: [9999] })).toThrow("prompt cannot be used");
  await running.drain({ timeoutSeconds: 1 });
  expect(() => running.generate({ prompt })).toThrow("the engine takes no requests");
});

test("the same engine, served over HTTP beside its use in process", async () => {
  const running = await start();
  const server = await serve(running, { port: 0, logLevel: "none", modelNames: ["mine"] });
  const answer = fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "mine", prompt, max_tokens: 30, temperature: 0 }),
  });
  let text = "";
  for await (const piece of running.generate({ prompt, maxTokens: 30, temperature: 0 })) text += piece.text;
  const { choices } = (await (await answer).json()) as Completion;
  expect(choices[0]!.text).toBe(text);
  await server.close({ timeoutSeconds: 5 });
  await expect(fetch(`${server.url}/health`)).rejects.toThrow();
});
