import { z } from "zod";
import { tokenizeConversation } from "./conversation.ts";
import { ApiError, invalid } from "./errors.ts";
import { type Exchange, resolveModel, type Service } from "./exchange.ts";
import { tokenizeText } from "./prompts.ts";
import { checkTokenIds } from "./sampling.ts";
import { conversationFields } from "./schema/chat.ts";
import { detokenizeBody, tokenizeBody } from "./schema/tokens.ts";
import { validate } from "./schema/validate.ts";

const conversation = z.object(conversationFields);

function tokensOf(
  { prompt, messages, add_special_tokens: special }: z.output<typeof tokenizeBody>,
  raw: Record<string, unknown>,
  service: Service,
): readonly number[] {
  if ((prompt === undefined) === (messages === undefined)) {
    throw new ApiError(400, "give either 'prompt' or 'messages'", { code: "missing_required_parameter" });
  }
  if (prompt !== undefined) return tokenizeText(prompt, service.engine, special ?? true, "prompt");
  const body = validate(conversation, raw);
  return tokenizeConversation(body, body.tools, service);
}

/** POST /tokenize: ids of a prompt, or of messages as the chat template writes them. @throws ApiError */
export function handleTokenize(raw: Record<string, unknown>, exchange: Exchange, service: Service): void {
  const { engine } = service;
  const body = validate(tokenizeBody, raw);
  resolveModel(body.model, service);
  const tokens = tokensOf(body, raw, service);
  exchange.sendJson({
    count: tokens.length,
    max_model_len: engine.maximumContext,
    tokens,
    token_strs: body.return_token_strs ? tokens.map((id) => engine.tokenText(id).text) : null,
  });
}

/** POST /detokenize: the text of ids. @throws ApiError */
export function handleDetokenize(raw: Record<string, unknown>, exchange: Exchange, service: Service): void {
  const body = validate(detokenizeBody, raw);
  resolveModel(body.model, service);
  if (body.tokens.length > service.engine.maximumContext * 4) {
    throw invalid("tokens", `invalid 'tokens': more than ${service.engine.maximumContext * 4} of them`);
  }
  checkTokenIds(body.tokens, service.engine, "tokens");
  exchange.sendJson({ prompt: service.engine.detokenize(body.tokens, { skipSpecialTokens: false }) });
}
