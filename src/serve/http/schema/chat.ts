import { z } from "zod";
import type { ChatMessage, ToolChoice, ToolDefinition } from "../../chat/types.ts";
import { maximumLogprobs, samplingFields, unsupportedSampling } from "./sampling.ts";

interface Problem {
  readonly message: string;
  readonly path?: number[];
}

/** What is wrong with a message's content, which is a text or a list of parts that are texts. */
function contentProblem(content: unknown): Problem | undefined {
  if (content === undefined || content === null || typeof content === "string") return undefined;
  if (!Array.isArray(content)) return { message: "expected a text or a list of content parts" };
  for (const [index, part] of content.entries()) {
    const { type, text } = (typeof part === "object" && part !== null ? part : {}) as Record<string, unknown>;
    const path = [index];
    if (type !== "text") return { message: "only content parts of type 'text' are supported", path };
    if (typeof text !== "string") return { message: "a part of type 'text' has a 'text'", path };
  }
  return undefined;
}

const toolCall = z.object({
  id: z.string().max(256).optional(),
  type: z.literal("function").default("function"),
  function: z.object({ name: z.string().max(256), arguments: z.string() }),
});

const message = z
  .object({
    role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]),
    content: z
      .unknown()
      .optional()
      .superRefine((value, context) => {
        const problem = contentProblem(value);
        if (problem !== undefined) context.addIssue({ code: "custom", ...problem });
      }),
    name: z.string().max(256).nullish(),
    tool_calls: z.array(toolCall).max(128).nullish(),
    tool_call_id: z.string().max(256).nullish(),
  })
  .superRefine((value, context) => {
    const calls = value.tool_calls?.length ?? 0;
    if ((value.content ?? null) !== null || (value.role === "assistant" && calls > 0)) return;
    context.addIssue({ code: "custom", message: "a message has a content", path: ["content"] });
  })
  .transform(
    ({ name, tool_calls, tool_call_id, ...rest }): ChatMessage => ({
      role: rest.role,
      content: rest.content as ChatMessage["content"],
      ...(name == null ? {} : { name }),
      ...(tool_calls == null ? {} : { tool_calls }),
      ...(tool_call_id == null ? {} : { tool_call_id }),
    }),
  );

const tool = z
  .object({
    type: z.literal("function"),
    function: z.object({
      name: z.string().regex(/^[\w-]{1,64}$/, "1 to 64 letters, digits, dashes or underscores"),
      description: z.string().nullish(),
      parameters: z.record(z.string(), z.unknown()).nullish(),
      strict: z.boolean().nullish(),
    }),
  })
  .transform(
    ({ type, function: { name, description, parameters, strict } }): ToolDefinition => ({
      type,
      function: {
        name,
        ...(description == null ? {} : { description }),
        ...(parameters == null ? {} : { parameters }),
        ...(strict == null ? {} : { strict }),
      },
    }),
  );

const toolChoice: z.ZodType<ToolChoice> = z.union(
  [
    z.enum(["none", "auto", "required"]),
    z.object({ type: z.literal("function"), function: z.object({ name: z.string() }) }),
  ],
  { error: 'expected "none", "auto", "required" or {"type":"function","function":{"name":…}}' },
);

/** The fields that say what the conversation is: of chat, and of /tokenize. */
export const conversationFields = {
  messages: z.array(message).min(1).max(4096),
  tools: z.array(tool).max(128).default([]),
  add_generation_prompt: z.boolean().default(true),
  continue_final_message: z.boolean().default(false),
  add_special_tokens: z.boolean().default(false),
  chat_template_kwargs: z.record(z.string(), z.unknown()).default({}),
} as const;

/** The body of POST /v1/chat/completions. */
export const chatBody = z.object({
  ...samplingFields,
  ...conversationFields,
  max_tokens: z.int().min(1).optional(),
  max_completion_tokens: z.int().min(1).optional(),
  logprobs: z.boolean().default(false),
  top_logprobs: z.int().min(0).max(maximumLogprobs).optional(),
  tool_choice: toolChoice.optional(),
  parallel_tool_calls: z.boolean().default(true),
  response_format: z.unknown().optional(),
  structured_outputs: z.unknown().optional(),
});

/** A checked body of POST /v1/chat/completions. */
export type ChatBody = z.output<typeof chatBody>;

const conversationShape = z.object(conversationFields);

/** The checked fields that say what the conversation is. */
export type ConversationFields = z.output<typeof conversationShape>;

/** What chat does not support. */
export const unsupportedChat = {
  ...unsupportedSampling,
  functions: "use 'tools'",
  function_call: "use 'tool_choice'",
  audio: "only text is served",
  web_search_options: "there is no search",
  chat_template: "the template is chosen where the server starts",
  documents: "put them into a message",
  echo: "the answer holds no prompt",
} as const;
