import { readFile } from "node:fs/promises";
import type { Backend } from "../../backends.ts";
import { ConfigError } from "../../base/errors.ts";
import type { Trace } from "../../runtime/trace.ts";
import { builtinChatTemplates } from "../../serve/chat/template.ts";
import { ApiServer } from "../../serve/http/index.ts";
import { Engine, loadForServing } from "../../serve/index.ts";
import { withBackend } from "../backend.ts";
import type { ServeCommandOptions } from "../commands/serve.ts";
import { loadOptionsOf } from "../options.ts";
import { packageVersion } from "../version.ts";
import { gatherKeys } from "./api_keys.ts";
import { boundHeap } from "./memory.ts";
import { awaitSignal } from "./signals.ts";

/** The chat template that an option names: a built-in one or a file's. */
async function readTemplate(name: string | undefined): Promise<string | undefined> {
  if (name === undefined) return undefined;
  if (Object.hasOwn(builtinChatTemplates, name)) return builtinChatTemplates[name];
  try {
    return await readFile(name, "utf8");
  } catch (cause) {
    throw new ConfigError("bad_chat_template", "the chat template cannot be read", {
      where: `--chat-template ${name}`,
      expected: `a Jinja file, or one of ${Object.keys(builtinChatTemplates).join(", ")}`,
      cause,
    });
  }
}

async function loadEngine(
  options: ServeCommandOptions,
  backend: Backend,
  trace: Trace | undefined,
): Promise<Engine> {
  const { model, servedModelName } = options;
  const modelName = servedModelName?.[0];
  const parts = await loadForServing(backend, model, {
    ...loadOptionsOf(options),
    ...(modelName === undefined ? {} : { modelName }),
  });
  return await Engine.create({
    ...parts,
    maximumWaiting: options.maxWaiting,
    prefixCaching: options.prefixCaching,
    policy: options.scheduler,
    ...(options.tokenBudget === undefined ? {} : { tokenBudget: options.tokenBudget }),
    ...(options.mixedTokenBudget === undefined ? {} : { mixedTokenBudget: options.mixedTokenBudget }),
    ...(options.maxSequences === undefined ? {} : { maximumSequences: options.maxSequences }),
    ...(options.maxContext === undefined ? {} : { maximumContext: options.maxContext }),
    ...(options.blockSize === undefined ? {} : { blockSize: options.blockSize }),
    ...(options.cacheMemory === undefined ? {} : { cacheBytes: options.cacheMemory }),
    ...(options.kvCacheDtype === undefined ? {} : { cacheDtype: options.kvCacheDtype }),
    ...(trace === undefined ? {} : { trace }),
  });
}

async function listen(options: ServeCommandOptions): Promise<ApiServer> {
  const [apiKeys, chatTemplate] = await Promise.all([
    gatherKeys(options),
    readTemplate(options.chatTemplate),
  ]);
  return await ApiServer.listen({
    host: options.host,
    port: options.port,
    apiKeys,
    modelNames: options.servedModelName ?? [],
    maximumBodyBytes: options.maxBody,
    maximumAnswers: options.maxAnswers,
    corsOrigins: options.corsOrigin ?? [],
    logLevel: options.logLevel,
    version: packageVersion(),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  });
}

/**
 * Opens the port, loads the model, prints the URL, and serves until SIGTERM or SIGINT: then new requests are
 * refused and running ones finish or are cut. A second signal cuts them at once.
 */
export async function runServe(options: ServeCommandOptions): Promise<void> {
  const collectGarbage = boundHeap();
  await withBackend(options, async (backend, trace) => {
    const server = await listen(options);
    let engine: Engine | undefined;
    try {
      const signal = awaitSignal();
      engine = await Promise.race([loadEngine(options, backend, trace), signal.then(() => undefined)]);
      // Nothing waits for an answer yet, and nothing can stop a load half way.
      if (engine === undefined) process.exit(0);
      collectGarbage();
      server.attach(engine);
      console.log(`serving ${engine.modelName} at ${server.url}`);
      await signal;
      const timeoutSeconds = options.shutdownTimeout;
      const second = awaitSignal().then(() => process.exit(1));
      await Promise.race([server.close({ timeoutSeconds }), second]);
    } finally {
      await server.close({ timeoutSeconds: 0 });
      await engine?.dispose();
    }
  });
}
