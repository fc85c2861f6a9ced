import { z } from "zod";
import { maximumLogprobs, samplingFields, unsupportedSampling } from "./sampling.ts";

/** The body of POST /v1/completions. The prompt is checked where it becomes tokens. */
export const completionBody = z.object({
  ...samplingFields,
  prompt: z.unknown(),
  max_tokens: z.int().min(1).default(16),
  logprobs: z.int().min(0).max(maximumLogprobs).optional(),
  echo: z.boolean().default(false),
  response_format: z.unknown().optional(),
  structured_outputs: z.unknown().optional(),
  add_special_tokens: z.boolean().default(true),
});

/** A checked body of POST /v1/completions. */
export type CompletionBody = z.output<typeof completionBody>;

/** What completions do not support. */
export const unsupportedCompletion = {
  ...unsupportedSampling,
  suffix: "text is only continued, not filled in",
  prompt_embeds: "give the prompt as text or token ids",
} as const;
