import { Command, InvalidArgumentError, Option } from "commander";
import { parseBytes } from "../../base/bytes.ts";
import type { SchedulingPolicy } from "../../serve/core/types.ts";
import { defaultBodyBytes, type LogLevel, logLevels } from "../../serve/http/index.ts";
import { helpEnding } from "../help.ts";
import { addModelOptions, integerFrom, type ModelOptions, modelArgument, numberFrom } from "../options.ts";

/** What `slipstream serve` was asked. Settings of the engine that are absent are the engine's to choose. */
export interface ServeCommandOptions extends ModelOptions {
  /** A model folder. */
  readonly model: string;
  readonly port: number;
  readonly host: string;
  readonly kvCacheDtype?: "f32" | "bf16" | "f16" | "int8";
  readonly tokenBudget?: number;
  readonly mixedTokenBudget?: number;
  readonly maxSequences?: number;
  readonly maxContext?: number;
  readonly maxWaiting: number;
  readonly blockSize?: number;
  /** Bytes. */
  readonly cacheMemory?: number;
  readonly prefixCaching: boolean;
  readonly scheduler: SchedulingPolicy;
  readonly servedModelName?: readonly string[];
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  /** Seconds. */
  readonly shutdownTimeout: number;
  /** Bytes. */
  readonly maxBody: number;
  readonly maxAnswers: number;
  readonly chatTemplate?: string;
  readonly corsOrigin?: readonly string[];
  readonly logLevel: LogLevel;
}

const gather = (text: string, previous: readonly string[] = []): string[] => [...previous, text];

function sizeOf(text: string): number {
  let bytes = 0;
  try {
    bytes = parseBytes(text);
  } catch {
    // Refused below, in the words of the command line.
  }
  if (bytes >= 1) return bytes;
  throw new InvalidArgumentError("Expected bytes, such as 512MiB, 4GiB or 1048576.");
}

function addEngineOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--kv-cache-dtype <TYPE>", "numbers of the key/value cache; the model's by default").choices(
        ["f32", "bf16", "f16", "int8"],
      ),
    )
    .option("--token-budget <N>", "tokens that one step runs at the most; 512 by default", integerFrom(1))
    .option(
      "--mixed-token-budget <N>",
      "tokens at the most of a step that reads prompts while answers are written, or twice those answers; measured at the start by default",
      integerFrom(1),
    )
    .option("--max-sequences <N>", "answers that run at once at the most; 32 by default", integerFrom(1))
    .option(
      "--max-model-len, --max-context <N>",
      "tokens of a prompt and its answer together; by default what the model and the cache hold",
      integerFrom(1),
    )
    .option("--max-waiting <N>", "requests that may wait; more are refused with 503", integerFrom(1), 1024)
    .option("--block-size <N>", "tokens of a block of the key/value cache; 16 by default", integerFrom(1))
    .option("--cache-memory <SIZE>", "memory of the key/value cache, such as 4GiB", sizeOf)
    .option("--no-prefix-caching", "do not share the cache of equal beginnings")
    .addOption(
      new Option(
        "--scheduler <POLICY>",
        "how steps are filled: decodes first, then pieces of prompts; or whole prompts first",
      )
        .choices(["splitfuse", "prefill-first"])
        .default("splitfuse"),
    );
}

function addServerOptions(command: Command): Command {
  return command
    .option("--port <P>", "where to listen; 0 takes any free port", integerFrom(0, 65535), 8000)
    .option("--host <H>", "the address to listen on; 0.0.0.0 lets other machines in", "127.0.0.1")
    .option("--served-model-name <NAME>", "the model's name for clients (repeatable)", gather)
    .option(
      "--api-key <KEY>",
      "require this key (repeatable); SLIPSTREAM_API_KEY keeps it out of `ps`",
      gather,
    )
    .option("--api-key-file <FILE>", "require one of the keys in FILE, one a line")
    .option(
      "--shutdown-timeout <S>",
      "seconds for running answers after SIGTERM or Ctrl-C, before they are cut",
      numberFrom(0, 86_400),
      30,
    )
    .option("--max-body <SIZE>", "the largest body of a request", sizeOf, defaultBodyBytes)
    .option("--max-answers <N>", "answers of one request at the most: prompts times n", integerFrom(1), 128)
    .option("--chat-template <FILE>", "a Jinja file, or the name of a built-in template, for the model's own")
    .option(
      "--cors-origin <ORIGIN>",
      "let web pages of ORIGIN, or of * all, read answers (repeatable)",
      gather,
    )
    .addOption(
      new Option("--log-level <LEVEL>", "what to log, as JSON lines on standard error")
        .choices(logLevels)
        .default("info"),
    );
}

/** `slipstream serve`, calling `run` with its checked options. */
export function defineServe(run: (options: ServeCommandOptions) => Promise<void>): Command {
  const command = new Command("serve")
    .description(
      "Serve a language model over HTTP as OpenAI does: chat, completions, embeddings, and metrics for " +
        "Prometheus. Prints one line with the URL when it is ready.",
    )
    .argument("<MODEL>", modelArgument);
  addServerOptions(command);
  addEngineOptions(command);
  return addModelOptions(command)
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream serve runs/first/model", "serve a model to this machine at http://127.0.0.1:8000/v1"],
          ["slipstream serve MODEL --host 0.0.0.0 --api-key-file keys.txt", "to others, who need a key"],
          [
            "slipstream serve MODEL --precision bf16 --max-sequences 64 --cache-memory 8GiB",
            "to many at once",
          ],
        ],
        next: "docs/serving.md",
      }),
    )
    .action(async (model: string, options: Omit<ServeCommandOptions, "model">) => {
      await run({ ...options, model });
    });
}
