import { endianness } from "node:os";
import { ApiError } from "./errors.ts";
import { type Exchange, resolveModel, type Service } from "./exchange.ts";
import { readInputs } from "./prompts.ts";
import { embeddingBody, unsupportedEmbedding } from "./schema/embeddings.ts";
import { refuseUnsupported, validate } from "./schema/validate.ts";

/** Little-endian float32 in base64, as OpenAI's clients decode it. */
function toBase64(vector: Float32Array): string {
  const bytes = Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
  return (endianness() === "LE" ? bytes : Buffer.from(bytes).swap32()).toString("base64");
}

/** POST /v1/embeddings. @throws ApiError */
export async function handleEmbeddings(
  raw: Record<string, unknown>,
  exchange: Exchange,
  service: Service,
): Promise<void> {
  refuseUnsupported(raw, unsupportedEmbedding);
  const body = validate(embeddingBody, raw);
  const { engine, limits } = service;
  const model = resolveModel(body.model, service);
  const inputs = readInputs(body.input, engine, {
    parameter: "input",
    limit: limits.embeddings,
    special: body.add_special_tokens,
  });
  for (const [index, { tokens }] of inputs.entries()) {
    if (tokens.length >= 1 && tokens.length <= engine.maximumContext) continue;
    const code = tokens.length === 0 ? "invalid_value" : "context_length_exceeded";
    const limit = `from 1 to ${engine.maximumContext} tokens`;
    throw new ApiError(400, `input ${index} has ${tokens.length} tokens; inputs have ${limit}`, {
      parameter: "input",
      code,
    });
  }
  const tokens = inputs.reduce((sum, input) => sum + input.tokens.length, 0);
  exchange.promptTokens = tokens;
  const vectors = await engine.embed(
    inputs.map((input) => input.tokens),
    { signal: exchange.signal },
  );
  exchange.sendJson({
    object: "list",
    data: vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: body.encoding_format === "base64" ? toBase64(vector) : Array.from(vector),
    })),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}
