import { z } from "zod";

/** The body of POST /tokenize: vLLM's, with either a prompt or a conversation, which is checked where it is. */
export const tokenizeBody = z.object({
  model: z.string().optional(),
  prompt: z.string().optional(),
  messages: z.unknown().optional(),
  add_special_tokens: z.boolean().optional(),
  return_token_strs: z.boolean().default(false),
});

/** The body of POST /detokenize. */
export const detokenizeBody = z.object({
  model: z.string().optional(),
  tokens: z.array(z.int()),
});
