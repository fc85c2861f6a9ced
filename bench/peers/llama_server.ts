/**
 * node-llama-cpp behind the OpenAI completions endpoint, as its documentation has one serve many users: a context
 * with a sequence for each, batched by the package itself. Only what the load generator asks for: a prompt of
 * token ids or text, `max_tokens`, greedy, streamed.
 *
 *     node llama_server.ts FILE.gguf --threads 2 --sequences 32 --context 32768 --batch 512
 *
 * Prints its URL when it is ready.
 */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { type LlamaSequence, startLlama } from "./llama_runtime.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "2" },
    sequences: { type: "string", default: "32" },
    context: { type: "string", default: "32768" },
    batch: { type: "string", default: "512" },
  },
});
const [file] = positionals;
if (file === undefined) throw new Error("usage: llama_server.ts FILE.gguf");

const threads = Number(values.threads);
const sequences = Number(values.sequences);
const runtime = await startLlama(threads);
const model = await runtime.loadModel({ modelPath: file });
const context = await model.createContext({
  sequences,
  contextSize: Math.floor(Number(values.context) / sequences),
  batchSize: Number(values.batch),
  flashAttention: true,
  threads: { ideal: threads, min: threads },
});

const free: LlamaSequence[] = Array.from({ length: sequences }, () => context.getSequence());
const waiting: ((sequence: LlamaSequence) => void)[] = [];

function acquire(): Promise<LlamaSequence> {
  const sequence = free.pop();
  return sequence === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(sequence);
}

function release(sequence: LlamaSequence): void {
  const next = waiting.shift();
  if (next === undefined) free.push(sequence);
  else next(sequence);
}

interface CompletionRequest {
  readonly prompt: string | readonly number[];
  readonly max_tokens: number;
}

async function complete(request: CompletionRequest, response: ServerResponse): Promise<void> {
  const tokens = typeof request.prompt === "string" ? model.tokenize(request.prompt) : request.prompt;
  response.writeHead(200, { "content-type": "text/event-stream" });
  const sequence = await acquire();
  try {
    let count = 0;
    for await (const token of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
      count += 1;
      const choice = { index: 0, text: model.detokenize([token]), finish_reason: null, logprobs: null };
      response.write(`data: ${JSON.stringify({ object: "text_completion", choices: [choice] })}\n\n`);
      if (count === request.max_tokens || response.destroyed) break;
    }
    const usage = { prompt_tokens: tokens.length, completion_tokens: count };
    response.write(`data: ${JSON.stringify({ object: "text_completion", choices: [], usage })}\n\n`);
    response.end("data: [DONE]\n\n");
  } finally {
    await sequence.clearHistory();
    release(sequence);
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  request.setEncoding("utf8");
  let text = "";
  for await (const piece of request) text += String(piece);
  return text;
}

const server = createServer((request, response) => {
  void (async () => {
    try {
      if (request.url !== "/v1/completions") {
        response.writeHead(request.url === "/health" ? 200 : 404).end();
        return;
      }
      await complete(JSON.parse(await readBody(request)) as CompletionRequest, response);
    } catch (fault) {
      if (!response.headersSent) response.writeHead(500);
      response.end(fault instanceof Error ? fault.message : String(fault));
    }
  })();
});
server.listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
