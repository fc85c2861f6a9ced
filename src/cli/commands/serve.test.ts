import { expect, test } from "vitest";
import { defineServe, type ServeCommandOptions } from "./serve.ts";

/** The options that a command line comes to. */
async function parse(...parameters: string[]): Promise<ServeCommandOptions> {
  let found: ServeCommandOptions | undefined;
  const command = defineServe(async (options) => {
    found = options;
  });
  await command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .parseAsync(parameters, { from: "user" });
  return found!;
}

test("defaults", async () => {
  expect(await parse("model")).toEqual({
    model: "model",
    host: "127.0.0.1",
    port: 8000,
    maxWaiting: 1024,
    prefixCaching: true,
    scheduler: "splitfuse",
    shutdownTimeout: 30,
    maxBody: 16 * 2 ** 20,
    maxAnswers: 128,
    logLevel: "info",
    precision: "f32",
    backend: "native",
  });
});

test("every option", async () => {
  const line =
    "m --port 0 --host ::1 --precision bf16 --kv-cache-dtype bf16 --token-budget 256 --max-sequences 8 " +
    "--max-context 2048 --max-waiting 16 --block-size 32 --cache-memory 1.5GiB --no-prefix-caching " +
    "--scheduler prefill-first --served-model-name a --served-model-name b --api-key k1 --api-key k2 " +
    "--api-key-file keys.txt --shutdown-timeout 0.5 --max-body 2MB --max-answers 4 --chat-template chatml " +
    "--cors-origin * --log-level none --backend reference --trace t.json";
  expect(await parse(...line.split(" "))).toEqual({
    model: "m",
    port: 0,
    host: "::1",
    precision: "bf16",
    kvCacheDtype: "bf16",
    tokenBudget: 256,
    maxSequences: 8,
    maxContext: 2048,
    maxWaiting: 16,
    blockSize: 32,
    cacheMemory: 1.5 * 2 ** 30,
    prefixCaching: false,
    scheduler: "prefill-first",
    servedModelName: ["a", "b"],
    apiKey: ["k1", "k2"],
    apiKeyFile: "keys.txt",
    shutdownTimeout: 0.5,
    maxBody: 2e6,
    maxAnswers: 4,
    chatTemplate: "chatml",
    corsOrigin: ["*"],
    logLevel: "none",
    backend: "reference",
    trace: "t.json",
  });
  expect((await parse("m", "--max-model-len", "99")).maxContext).toBe(99);
});

test.each([
  ["m --port 65536", "Expected an integer, from 0 to 65535."],
  ["m --port http", "Expected an integer, from 0 to 65535."],
  ["m --token-budget 0", "Expected an integer, 1 or more."],
  ["m --cache-memory much", "Expected bytes, such as 512MiB"],
  ["m --max-body 0", "Expected bytes, such as 512MiB"],
  ["m --shutdown-timeout -1", "Expected a number from 0 on"],
  ["m --scheduler fifo", "Allowed choices are splitfuse, prefill-first"],
  ["m --kv-cache-dtype int3", "Allowed choices are"],
  ["m --log-level loud", "Allowed choices are debug, info, warning, error, none"],
  ["m --prot 80", "unknown option '--prot'"],
  ["", "missing required argument 'MODEL'"],
])("`%s` is refused: %s", async (line, message) => {
  await expect(parse(...line.split(" ").filter(Boolean))).rejects.toThrow(message);
});
