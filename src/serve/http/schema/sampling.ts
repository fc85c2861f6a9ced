import { z } from "zod";

/** Rivals of a token whose log-probabilities an answer may carry. */
export const maximumLogprobs = 20;

const stopTexts = z.preprocess(
  (value) => (typeof value === "string" ? [value] : value),
  z.array(z.string().min(1).max(1000)).max(64),
);

/**
 * Fields that completions and chat share: OpenAI's, and vLLM's beyond them. Ranges are OpenAI's where it gives
 * any, vLLM's otherwise.
 */
export const samplingFields = {
  model: z.string().optional(),
  stream: z.boolean().default(false),
  stream_options: z.object({ include_usage: z.boolean().default(false) }).optional(),
  n: z.int().min(1).default(1),
  best_of: z.int().optional(),
  temperature: z.number().min(0).max(2).default(1),
  top_p: z.number().min(0).max(1).default(1),
  top_k: z.int().min(-1).default(0),
  min_p: z.number().min(0).max(1).default(0),
  repetition_penalty: z.number().gt(0).max(100).default(1),
  presence_penalty: z.number().min(-2).max(2).default(0),
  frequency_penalty: z.number().min(-2).max(2).default(0),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)).optional(),
  seed: z.int().optional(),
  stop: stopTexts.default([]),
  stop_token_ids: z.array(z.int()).max(512).default([]),
  include_stop_str_in_output: z.boolean().default(false),
  min_tokens: z.int().min(0).default(0),
  ignore_eos: z.boolean().default(false),
  skip_special_tokens: z.boolean().default(true),
  priority: z
    .int()
    .min(-(2 ** 31))
    .max(2 ** 31 - 1)
    .default(0),
  cache_salt: z.string().min(1).max(256).optional(),
  user: z.string().max(512).optional(),
} as const;

const samplingShape = z.object(samplingFields);

/** The shared fields of a checked body. */
export type SamplingFields = z.output<typeof samplingShape>;

/** What neither completions nor chat supports. */
export const unsupportedSampling = {
  use_beam_search: "sample several answers with 'n'",
  prompt_logprobs: "only the answer's tokens have log-probabilities",
  logits_processors: "use 'logit_bias' or 'response_format'",
  guided_json: "use 'structured_outputs.json'",
  guided_regex: "use 'structured_outputs.regex'",
  guided_choice: "use 'structured_outputs.choice'",
  guided_grammar: "use 'response_format' of type json_schema",
  bad_words: "use 'logit_bias'",
} as const;
