import { RequestError } from "../engine/errors.ts";
import { compileTemplate, runTemplate } from "./interpreter.ts";
import type { ChatMessage, ToolDefinition } from "./types.ts";

/** How a conversation becomes a prompt. */
export interface RenderChatOptions {
  /** Functions that the model may call; none by default. */
  readonly tools?: readonly ToolDefinition[];
  /** Whether the prompt ends where the assistant's answer begins; true by default. */
  readonly addGenerationPrompt?: boolean;
  /** Whether the answer goes on where the last message, an assistant's, ends; false by default. */
  readonly continueFinalMessage?: boolean;
  readonly specialTokens?: {
    readonly bos?: string;
    readonly eos?: string;
    readonly pad?: string;
    readonly unk?: string;
  };
  /** More variables for the template, such as `enable_thinking` (`chat_template_kwargs`). */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** For `strftime_now`; the time of the call by default. */
  readonly now?: Date;
}

/** Templates that can be named where a model has none: `--chat-template chatml`. */
export const builtinChatTemplates: Readonly<Record<string, string>> = {
  /** ChatML, with tools in the Hermes format. */
  chatml: [
    "{%- if tools %}{{- '<|im_start|>system\\n' }}",
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}",
    "{{- 'These functions can be called, one JSON object a line:\\n<tools>' }}",
    "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}",
    "{{- '\\n</tools>\\nTo call one, write:\\n<tool_call>\\n' }}",
    '{{- \'{"name": "the name", "arguments": {}}\\n</tool_call><|im_end|>\\n\' }}',
    "{%- elif messages[0].role == 'system' %}",
    "{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}",
    "{%- for message in messages %}{%- if not (loop.first and message.role == 'system') %}",
    "{{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}",
    "{%- if message.role == 'tool' %}",
    "{{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}",
    "{%- else %}{{- message.content or '' }}{%- endif %}",
    "{%- for call in message.tool_calls or [] %}",
    "{{- '\\n<tool_call>\\n{\"name\": ' + (call.function.name | tojson) + ', \"arguments\": ' }}",
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}{%- endfor %}",
    "{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}",
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
  ].join("\n"),
  /** For base models, which know no roles: the messages as a dialogue. */
  plain: [
    "{%- for message in messages %}{%- if message.role == 'system' %}{{- message.content + '\\n\\n' }}",
    "{%- else %}{{- (message.role | capitalize) + ': ' + (message.content or '') + '\\n' }}{%- endif %}{%- endfor %}",
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}",
  ].join("\n"),
};

/** A mark that no conversation holds, by which the end of the last message is found. */
const endMark = "\u{F8FE}end of the last message\u{F8FE}";

/**
 * The prompt of a conversation by a model's template. Contents in parts are joined; the arguments of earlier calls
 * are given to the template as objects. The text holds the begin-of-text token where the template writes it, so it is
 * tokenized without adding another.
 * @throws RequestError `invalid_request`: no template, messages of no known shape, images or sounds, a template that
 * refuses them (`raise_exception`), fails, or does not come to an end
 */
export function renderChat(
  template: string | undefined,
  messages: readonly ChatMessage[],
  options: RenderChatOptions = {},
): string {
  if (template === undefined || template.trim() === "") {
    throw new RequestError("invalid_request", "this model has no chat template", {
      parameter: "messages",
      hint: `start the server with one: --chat-template FILE, or ${Object.keys(builtinChatTemplates).join(" or ")}`,
    });
  }
  const { tools = [], specialTokens = {}, continueFinalMessage = false } = options;
  if (messages.length === 0) throw wrong("messages", "at least one message");
  if (tools.length > 0 && !/\btools\b/.test(template)) {
    throw new RequestError("invalid_request", "the chat template of this model has no place for tools", {
      parameter: "tools",
      hint: "start the server with a template that has: --chat-template chatml, for one",
    });
  }
  const plain = messages.map((message, index) => plainMessage(message, `messages[${index}]`));
  if (continueFinalMessage) {
    const last = plain.at(-1)!;
    if (last.role !== "assistant") throw wrong("messages", "a last message of the assistant, to go on with");
    last.content = `${String(last.content ?? "")}${endMark}`;
  }
  const text = runTemplate(
    compileTemplate(template),
    {
      ...options.variables,
      messages: plain,
      ...(tools.length === 0 ? {} : { tools: tools.map(plainTool) }),
      add_generation_prompt: !continueFinalMessage && (options.addGenerationPrompt ?? true),
      bos_token: specialTokens.bos ?? "",
      eos_token: specialTokens.eos ?? "",
      pad_token: specialTokens.pad ?? "",
      unk_token: specialTokens.unk ?? "",
    },
    options.now ?? new Date(),
  );
  if (!continueFinalMessage) return text;
  const end = text.lastIndexOf(endMark);
  if (end < 0) throw wrong("messages", "a template that writes the last message, to go on with");
  return text.slice(0, end);
}

function wrong(parameter: string, expected: string, received?: string): RequestError {
  return new RequestError("invalid_request", `${parameter} is not right`, {
    parameter,
    expected,
    ...(received === undefined ? {} : { received: received.slice(0, 100) }),
  });
}

function plainMessage(message: ChatMessage, where: string): Record<string, unknown> {
  const plain: Record<string, unknown> = {
    role: message.role,
    content: plainContent(message, `${where}.content`),
  };
  if (message.name !== undefined) plain.name = message.name;
  if (message.tool_call_id !== undefined) plain.tool_call_id = message.tool_call_id;
  if (message.tool_calls !== undefined && message.tool_calls !== null) {
    plain.tool_calls = message.tool_calls.map((call, index) => ({
      type: "function",
      ...(call.id === undefined ? {} : { id: call.id }),
      function: {
        name: call.function.name,
        arguments: plainArguments(
          call.function.arguments,
          `${where}.tool_calls[${index}].function.arguments`,
        ),
      },
    }));
  }
  return plain;
}

function plainContent(message: ChatMessage, where: string): string | null {
  const { content } = message;
  if (content === undefined || content === null) {
    const calls = message.role === "assistant" && (message.tool_calls?.length ?? 0) > 0;
    if (!calls && message.role !== "assistant") throw wrong(where, "text");
    return calls ? null : "";
  }
  if (typeof content === "string") return content;
  return content
    .map((part, index) => {
      if (part.type !== "text" && part.type !== "refusal") {
        throw new RequestError(
          "invalid_request",
          `this model reads text only, not ${part.type.slice(0, 40)}`,
          {
            parameter: `${where}[${index}]`,
          },
        );
      }
      if (typeof part.text !== "string") throw wrong(`${where}[${index}].text`, "text");
      return part.text;
    })
    .join("");
}

/** Templates write arguments as JSON themselves, so they are given the object. */
function plainArguments(text: string, where: string): unknown {
  try {
    return text.trim() === "" ? {} : (JSON.parse(text) as unknown);
  } catch {
    throw wrong(where, "JSON text", text);
  }
}

function plainTool({ function: definition }: ToolDefinition): unknown {
  const { name, description, parameters } = definition;
  return {
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      parameters: parameters ?? { type: "object", properties: {} },
    },
  };
}
