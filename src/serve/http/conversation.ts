import { renderChat } from "../chat/template.ts";
import type { ToolDefinition } from "../chat/types.ts";
import type { Service } from "./exchange.ts";
import { tokenizeText } from "./prompts.ts";
import type { ConversationFields } from "./schema/chat.ts";

/** The chat template in force: the one that the server was started with, or the model's own. */
export function templateOf(service: Service): string | undefined {
  return service.chatTemplate ?? service.engine.chatTemplate;
}

/**
 * The tokens of a conversation, as the chat template writes it.
 * @param tools those that the model is told of
 * @throws RequestError or ApiError 400
 */
export function tokenizeConversation(
  body: ConversationFields,
  tools: readonly ToolDefinition[],
  service: Service,
): readonly number[] {
  const { engine } = service;
  const text = renderChat(templateOf(service), body.messages, {
    ...(tools.length === 0 ? {} : { tools }),
    addGenerationPrompt: body.add_generation_prompt && !body.continue_final_message,
    continueFinalMessage: body.continue_final_message,
    specialTokens: engine.specialTokens,
    variables: body.chat_template_kwargs,
  });
  return tokenizeText(text, engine, body.add_special_tokens, "messages");
}
