import { z } from "zod";

/** The body of POST /v1/embeddings. The input is checked where it becomes tokens. */
export const embeddingBody = z.object({
  model: z.string().optional(),
  input: z.unknown(),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  add_special_tokens: z.boolean().default(true),
  user: z.string().max(512).optional(),
});

/** What embeddings do not support. */
export const unsupportedEmbedding = {
  dimensions: "embeddings have the size of the model",
  messages: "give 'input'",
  truncate_prompt_tokens: "shorten the input",
} as const;
