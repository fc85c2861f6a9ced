import { bytesPerElement, type DType } from "../../base/dtype.ts";
import { ConfigError } from "../../base/errors.ts";
import type { Tokenizer } from "../../data/index.ts";
import type { Model } from "../../models/index.ts";
import type { Trace } from "../../runtime/trace.ts";
import type { SchedulingPolicy } from "../core/types.ts";
import { assumedMixedBudget } from "./mixed_budget.ts";
import type { ServingEngine } from "./types.ts";

/** How the engine keeps keys and values: as they are, or in int8 with a scale for each token and head. */
export type CacheDType = "f32" | "bf16" | "f16" | "int8";

/** How the engine serves. */
export interface EngineSettings {
  /** Tokens that one step runs at the most; 512 by default. */
  readonly tokenBudget?: number;
  /**
   * Tokens at the most of a step that reads prompts while answers are written, or twice those answers where that is
   * more; by default as many as the machine runs in less than twice the time of one, which is measured at the start. More reads
   * prompts faster, less keeps answers flowing.
   */
  readonly mixedTokenBudget?: number;
  /** Sequences that run at once at the most; 32 by default. */
  readonly maximumSequences?: number;
  /** Requests that may wait; 1024 by default. */
  readonly maximumWaiting?: number;
  /** Tokens of a prompt and its answer together; by default what the model and the cache can hold. */
  readonly maximumContext?: number;
  /** Tokens of one block of the cache; 16 by default. */
  readonly blockSize?: number;
  /** Blocks of the cache; `cacheBytes` says the same in bytes. */
  readonly blocks?: number;
  /**
   * Bytes of the cache at the most; by default enough for 1,024 tokens of every sequence and for two of full
   * length, up to 4 GiB or a quarter of the memory that the process may still take.
   */
  readonly cacheBytes?: number;
  /** The model's dtype by default. */
  readonly cacheDtype?: CacheDType;
  /** Whether blocks of equal beginnings are shared; true by default. */
  readonly prefixCaching?: boolean;
  /** "splitfuse" by default. */
  readonly policy?: SchedulingPolicy;
  /** From which the seeds of requests without one are drawn; random by default. */
  readonly seed?: number;
  /** Records where the time of every request and step goes. */
  readonly trace?: Trace;
}

/** A loaded model and what is needed to serve it. */
export interface EngineParts {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** The name under which the model is served. */
  readonly modelName: string;
  /** The Jinja source of the chat template. */
  readonly chatTemplate?: string;
  readonly specialTokens?: ServingEngine["specialTokens"];
  /** Tokens that end a text. */
  readonly endTokens: readonly number[];
}

/** Settings with every default filled in. */
export interface EngineLimits {
  readonly tokenBudget: number;
  readonly mixedTokenBudget: number;
  readonly maximumSequences: number;
  readonly maximumWaiting: number;
  readonly maximumContext: number;
  readonly blockSize: number;
  readonly blocks: number;
  readonly cacheDtype: CacheDType;
  readonly prefixCaching: boolean;
  readonly policy: SchedulingPolicy;
}

/** The most that the cache takes unless more is asked for. */
const mostDefaultCacheBytes = 4 * 2 ** 30;

/** The default cache has so many tokens for every sequence, and room for two of full length. */
const usualTokens = 1024;

function defaultCacheBytes(wanted: number): number {
  return Math.min(wanted, mostDefaultCacheBytes, process.availableMemory() / 4);
}

/**
 * Fills in the defaults for a model and checks what was given.
 * @throws ConfigError naming the setting that is wrong.
 */
export function resolveSettings(settings: EngineSettings, model: Model): EngineLimits {
  const { maximumPositions, layers, groups, headSize } = model.facts;
  const count = (name: keyof EngineSettings, value: number, most: number): number => {
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    throw new ConfigError("bad_setting", `${name} cannot be used`, {
      where: `the engine's ${name}`,
      expected: `an integer from 1 to ${most}`,
      received: String(value),
    });
  };
  const blockSize = count("blockSize", settings.blockSize ?? 16, 1024);
  const tokenBudget = count("tokenBudget", settings.tokenBudget ?? 512, 2 ** 16);
  const maximumSequences = count("maximumSequences", settings.maximumSequences ?? 32, 4096);
  if (tokenBudget < maximumSequences && settings.maximumSequences !== undefined) {
    throw new ConfigError("bad_setting", "every running sequence needs a token of each step", {
      where: "the engine's tokenBudget",
      expected: `at least maximumSequences, ${maximumSequences}`,
      received: String(tokenBudget),
    });
  }
  const cacheDtype = settings.cacheDtype ?? cacheDtypeOf(model.parts.dtype);
  const headBytes =
    cacheDtype === "int8"
      ? headSize * bytesPerElement("i8") + bytesPerElement("f32")
      : headSize * bytesPerElement(cacheDtype);
  const blockBytes = 2 * layers * groups * headBytes * blockSize;
  const wantedContext = count(
    "maximumContext",
    settings.maximumContext ?? maximumPositions,
    maximumPositions,
  );
  const fullBlocks = Math.ceil(wantedContext / blockSize);
  const sequences = Math.min(maximumSequences, tokenBudget);
  const usualBlocks = Math.max(2 * fullBlocks, Math.ceil(usualTokens / blockSize) * sequences);
  const affordable = Math.floor(
    (settings.cacheBytes ?? defaultCacheBytes(usualBlocks * blockBytes)) / blockBytes,
  );
  const blocks = count(
    settings.blocks === undefined && settings.cacheBytes !== undefined ? "cacheBytes" : "blocks",
    settings.blocks ?? Math.min(affordable, fullBlocks * sequences),
    2 ** 24,
  );
  const maximumContext = Math.min(wantedContext, blocks * blockSize);
  if (settings.maximumContext !== undefined && maximumContext < wantedContext) {
    throw new ConfigError("cache_too_small", "the cache cannot hold one sequence of full length", {
      where: "the engine's maximumContext",
      expected: `at most ${blocks * blockSize} tokens (${blocks} blocks of ${blockSize})`,
      received: String(wantedContext),
      hint: "give the cache more bytes or blocks, or lower maximumContext",
    });
  }
  return {
    tokenBudget,
    mixedTokenBudget: count("mixedTokenBudget", settings.mixedTokenBudget ?? assumedMixedBudget, 2 ** 16),
    maximumSequences: sequences,
    maximumWaiting: count("maximumWaiting", settings.maximumWaiting ?? 1024, 2 ** 24),
    maximumContext,
    blockSize,
    blocks,
    cacheDtype,
    prefixCaching: settings.prefixCaching ?? true,
    policy: settings.policy ?? "splitfuse",
  };
}

function cacheDtypeOf(dtype: DType): CacheDType {
  return dtype === "bf16" || dtype === "f16" ? dtype : "f32";
}
