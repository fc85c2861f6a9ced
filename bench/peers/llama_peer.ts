/** node-llama-cpp, and llama.cpp below it, as a benchmark peer: see protocol.ts. */

import { readFile } from "node:fs/promises";
import { answerRequests } from "./answer_requests.ts";
import {
  type LlamaContext,
  type LlamaModel,
  type LlamaRuntime,
  type LowContext,
  startLlama,
} from "./llama_runtime.ts";
import type { DecodeRequest, GreedyRequest, OpenRequest, PeerRequest, PromptRequest } from "./protocol.ts";

interface Opened {
  readonly request: OpenRequest;
  readonly runtime: LlamaRuntime;
  readonly model: LlamaModel;
  /** One of the two at a time: each has the whole cache. */
  low?: LowContext;
  public?: LlamaContext;
}

let opened: Opened | undefined;

function current(): Opened {
  if (opened === undefined) throw new Error("no file is open: send the task open first");
  return opened;
}

async function close(): Promise<void> {
  await opened?.low?.dispose();
  await opened?.public?.dispose();
  await opened?.model.dispose();
  opened = undefined;
}

async function open(request: OpenRequest): Promise<Record<string, unknown>> {
  await close();
  const runtime = await startLlama(request.threads);
  const begin = performance.now();
  const model = await runtime.loadModel({ modelPath: request.file });
  opened = { request, runtime, model };
  await lowContext();
  return { seconds: (performance.now() - begin) / 1e3 };
}

async function lowContext(): Promise<LowContext> {
  const state = current();
  await state.public?.dispose();
  delete state.public;
  if (state.low !== undefined) return state.low;
  const { context, batch, sequences, threads } = state.request;
  const low = new state.runtime._bindings.AddonContext(state.model._model, {
    contextSize: context,
    batchSize: batch,
    sequences,
    flashAttention: true,
    threads,
  });
  if (!(await low.init())) throw new Error("llama.cpp could not make a context of that size");
  state.low = low;
  return low;
}

async function publicContext(sequences: number): Promise<LlamaContext> {
  const state = current();
  await state.low?.dispose();
  delete state.low;
  await state.public?.dispose();
  const { context, batch, threads } = state.request;
  state.public = await state.model.createContext({
    sequences,
    contextSize: Math.floor(context / sequences),
    batchSize: batch,
    flashAttention: true,
    threads: { ideal: threads, min: threads },
  });
  return state.public;
}

/** One pass: tokens of a sequence from a position on; the logits of the last are computed. */
async function pass(
  context: LowContext,
  parts: readonly { sequence: number; position: number; tokens: readonly number[] }[],
): Promise<void> {
  context.initBatch(parts.reduce((total, { tokens }) => total + tokens.length, 0));
  for (const { sequence, position, tokens } of parts) {
    context.addToBatch(sequence, position, Uint32Array.from(tokens), Uint32Array.of(tokens.length - 1));
  }
  await context.decodeBatch();
}

/** Reads a prompt in passes of the batch size. */
async function read(context: LowContext, sequence: number, tokens: readonly number[]): Promise<void> {
  const { batch } = current().request;
  for (let position = 0; position < tokens.length; position += batch) {
    await pass(context, [{ sequence, position, tokens: tokens.slice(position, position + batch) }]);
  }
}

async function timed(body: () => Promise<void>): Promise<number> {
  const begin = performance.now();
  await body();
  return (performance.now() - begin) / 1e3;
}

function answerTimes(seconds: readonly number[]): Record<string, unknown> {
  const sorted = seconds.toSorted((first, second) => first - second);
  return { seconds, median_seconds: sorted[Math.floor(sorted.length / 2)]! };
}

async function prompt(request: PromptRequest): Promise<Record<string, unknown>> {
  const context = await lowContext();
  const seconds: number[] = [];
  for (let repetition = 0; repetition < request.repetitions; repetition += 1) {
    seconds.push(await timed(async () => await read(context, 0, request.tokens)));
    context.disposeSequence(0);
  }
  return answerTimes(seconds);
}

/** Ids that differ from stream to stream and from position to position. */
function someTokens(stream: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => 300 + ((stream * 7919 + index * 104_729) % 30_000));
}

async function decode(request: DecodeRequest): Promise<Record<string, unknown>> {
  const { api, streams, prompt: length, steps } = request;
  const every = Array.from({ length: streams }, (_, stream) => stream);
  const seconds: number[] = [];
  if (api === "batch") {
    const context = await lowContext();
    for (const sequence of every) await read(context, sequence, someTokens(sequence, length));
    for (let step = 0; step < steps; step += 1) {
      const parts = every.map((sequence) => ({
        sequence,
        position: length + step,
        tokens: [300 + ((sequence * 31 + step * 17) % 30_000)],
      }));
      seconds.push(await timed(async () => await pass(context, parts)));
    }
    for (const sequence of every) context.disposeSequence(sequence);
    return answerTimes(seconds);
  }
  const context = await publicContext(streams);
  const runs = every.map((stream) =>
    context.getSequence().evaluate(someTokens(stream, length), { temperature: 0, yieldEogToken: true }),
  );
  // The prompts are read before the first token.
  await Promise.all(runs.map(async (run) => await run.next()));
  const total = await timed(async () => {
    await Promise.all(
      runs.map(async (run) => {
        for (let step = 0; step < steps; step += 1) {
          if ((await run.next()).done === true) throw new Error("a stream ended early");
        }
      }),
    );
  });
  await Promise.all(runs.map(async (run) => await run.return()));
  return answerTimes([total / steps]);
}

async function greedy(request: GreedyRequest): Promise<Record<string, unknown>> {
  const context = await publicContext(1);
  const tokens: number[] = [];
  const run = context.getSequence().evaluate(request.tokens, { temperature: 0, yieldEogToken: true });
  for await (const token of run) {
    tokens.push(token);
    if (tokens.length === request.count) break;
  }
  return { tokens };
}

/** The version of the package, read from where it is installed. */
async function version(): Promise<string> {
  const entry = import.meta.resolve("node-llama-cpp");
  const text = await readFile(new URL("../package.json", entry), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

async function answer(request: PeerRequest): Promise<Record<string, unknown>> {
  switch (request.task) {
    case "info": {
      const runtime = await startLlama(2);
      return { node_llama_cpp: await version(), llama_system: runtime._bindings.systemInfo() };
    }
    case "forget":
      await close();
      return {};
    case "open":
      return await open(request);
    case "prompt":
      return await prompt(request);
    case "decode":
      return await decode(request);
    case "greedy":
      return await greedy(request);
    case "matmul":
    case "attention":
    case "train":
      throw new Error(`node-llama-cpp has no task "${request.task}"`);
    default:
      throw new Error(`no such task: ${JSON.stringify(request satisfies never)}`);
  }
}

await answerRequests(answer);
// llama.cpp's threads would keep the process alive.
process.exit(0);
