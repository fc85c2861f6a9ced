import { describe, expect, it } from "vitest";
import { RequestError } from "../engine/errors.ts";
import { formatTime } from "./interpreter.ts";
import { builtinChatTemplates, renderChat } from "./template.ts";
import { detectToolFormat } from "./tools.ts";
import type { ChatMessage, ToolDefinition } from "./types.ts";

/** Templates in the shape of the models' own. */
const llama = `{{- bos_token }}{%- set date = strftime_now("%d %b %Y") %}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date + "\\n\\n" + system }}
{%- if tools is not none and tools is defined %}{{- "\\nAnswer with {\\"name\\": name, \\"parameters\\": values}\\n" }}
{%- for t in tools %}{{- t | tojson(indent=2) }}{%- endfor %}{%- endif %}{{- "<|eot_id|>" }}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" + message.content + "<|eot_id|>" }}
{%- elif 'tool_calls' in message %}{%- if message.tool_calls | length != 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
{%- else %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}`;

const qwen = `{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- else %}{{- 'Be helpful.' }}{%- endif %}
{{- "\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "\\n</tools>\\n<tool_call>...</tool_call><|im_end|>\\n" }}
{%- else %}{{- '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else 'Be helpful.') + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" or (message.role == "assistant" and not message.tool_calls) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == "assistant" %}{{- '<|im_start|>assistant' }}{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' + (tool_call.arguments | tojson) + '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == "tool" %}{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`;

const mistral = `{%- if messages[0]["role"] == "system" %}{%- set system = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
{%- if message.role == "user" %}{%- if tools is defined and loop.last %}{{- "[AVAILABLE_TOOLS]" + (tools | tojson) + "[/AVAILABLE_TOOLS]" }}{%- endif %}
{{- "[INST]" }}{%- if loop.first and system is defined %}{{- system + "\\n\\n" }}{%- endif %}{{- message.content + "[/INST]" }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- "[TOOL_CALLS][" }}
{%- for call in message.tool_calls %}{%- if call.id is not defined or call.id | length != 9 %}{{- raise_exception("ids have nine characters") }}{%- endif %}
{{- '{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- "]" + eos_token }}
{%- elif message.role == "assistant" %}{{- message.content + eos_token }}
{%- else %}{{- raise_exception("Only user and assistant roles are supported, not " + message.role) }}{%- endif %}
{%- endfor %}`;

const tools: ToolDefinition[] = [
  {
    type: "function",
    function: {
      name: "weather",
      description: "The weather",
      parameters: { type: "object", properties: { city: { type: "string" } } },
    },
  },
];
const now = new Date(2026, 6, 9, 15, 4);
const dialogue: ChatMessage[] = [
  { role: "system", content: " Be short. " },
  {
    role: "user",
    content: [
      { type: "text", text: "Bonjour " },
      { type: "text", text: "é" },
    ],
  },
];
const call = {
  id: "abcdefghi",
  type: "function" as const,
  function: { name: "weather", arguments: '{"city":"Bern"}' },
};

function refusal(render: () => unknown): RequestError {
  try {
    render();
  } catch (error) {
    expect(error).toBeInstanceOf(RequestError);
    return error as RequestError;
  }
  throw new Error("was not refused");
}

describe("a conversation", () => {
  it("is written in Llama's shape", () => {
    const text = renderChat(llama, dialogue, { specialTokens: { bos: "<|begin_of_text|>" }, now });
    expect(text).toBe(
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday: 09 Jul 2026\n\nBe short.<|eot_id|>" +
        "<|start_header_id|>user<|end_header_id|>\n\nBonjour é<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    );
    const called = renderChat(
      llama,
      [
        { role: "user", content: "x" },
        { role: "assistant", content: null, tool_calls: [call] },
      ],
      {
        tools,
        addGenerationPrompt: false,
        now,
      },
    );
    expect(called).toContain('\n{"name": "weather", "parameters": {"city": "Bern"}}<|eot_id|>');
    expect(called).toContain('"description": "The weather"');
    expect(detectToolFormat(llama)).toBe("llama3_json");
  });

  it("is written in Qwen's shape, with tools and calls", () => {
    const text = renderChat(
      qwen,
      [
        { role: "user", content: "Weather?" },
        { role: "assistant", tool_calls: [call, call] },
        { role: "tool", content: "12°", tool_call_id: "abcdefghi" },
      ],
      { tools },
    );
    const tool =
      '{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}';
    const written = '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>';
    expect(text).toBe(
      `<|im_start|>system\nBe helpful.\n<tools>\n${tool}\n</tools>\n<tool_call>...</tool_call><|im_end|>\n` +
        `<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant${written}${written}<|im_end|>\n` +
        "<|im_start|>user\n<tool_response>\n12°\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    );
    expect(detectToolFormat(qwen)).toBe("hermes");
  });

  it("is written in Mistral's shape", () => {
    const special = { bos: "<s>", eos: "</s>" };
    expect(renderChat(mistral, dialogue, { specialTokens: special })).toBe(
      "<s>[INST] Be short. \n\nBonjour é[/INST]",
    );
    const history = [
      { role: "user", content: "x" },
      { role: "assistant", tool_calls: [call] },
    ];
    expect(renderChat(mistral, history, { specialTokens: special })).toBe(
      '<s>[INST]x[/INST][TOOL_CALLS][{"name": "weather", "arguments": {"city": "Bern"}}]</s>',
    );
    expect(detectToolFormat(mistral)).toBe("mistral");
  });

  it("goes on with an answer that was begun", () => {
    const messages = [...dialogue, { role: "assistant", content: "It is" }];
    const text = renderChat(qwen, messages, { continueFinalMessage: true });
    expect(text.endsWith("<|im_start|>assistant\nIt is")).toBe(true);
    expect(refusal(() => renderChat(qwen, dialogue, { continueFinalMessage: true })).parameter).toBe(
      "messages",
    );
  });

  it("gives variables of the request to the template, but not in place of the messages", () => {
    const template = "{{ messages[0].content }}{{ ' thinks' if enable_thinking else '' }}";
    const user = [{ role: "user", content: "x" }];
    expect(renderChat(template, user, { variables: { enable_thinking: true, messages: [] } })).toBe(
      "x thinks",
    );
  });

  it("is written by the built-in templates", () => {
    expect(renderChat(builtinChatTemplates.chatml, dialogue)).toBe(
      "<|im_start|>system\n Be short. <|im_end|>\n<|im_start|>user\nBonjour é<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(renderChat(builtinChatTemplates.plain, dialogue)).toBe(
      " Be short. \n\nUser: Bonjour é\nAssistant:",
    );
    const text = renderChat(
      builtinChatTemplates.chatml,
      [...dialogue, { role: "assistant", tool_calls: [call] }],
      { tools },
    );
    expect(text).toContain(
      '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>\n',
    );
    expect(detectToolFormat(builtinChatTemplates.chatml)).toBe("hermes");
  });
});

describe("refused with what to do:", () => {
  const user: ChatMessage[] = [{ role: "user", content: "x" }];

  it("a model without a template", () => {
    expect(refusal(() => renderChat(undefined, user)).message).toMatch(
      /no chat template[\s\S]*--chat-template FILE/,
    );
  });

  it("what the template raises", () => {
    const error = refusal(() => renderChat(mistral, [{ role: "owner", content: "x" }]));
    expect(error.requestCode).toBe("invalid_request");
    expect(error.message).toMatch(
      /refuses the messages: Only user and assistant roles are supported, not owner/,
    );
  });

  it("images", () => {
    const error = refusal(() => renderChat(qwen, [{ role: "user", content: [{ type: "image_url" }] }]));
    expect(error.message).toMatch(/text only, not image_url/);
    expect(error.parameter).toBe("messages[0].content[0]");
  });

  it("calls whose arguments are no JSON", () => {
    const broken = { function: { name: "f", arguments: "{a}" } };
    const error = refusal(() => renderChat(qwen, [{ role: "assistant", tool_calls: [broken] }]));
    expect(error.parameter).toBe("messages[0].tool_calls[0].function.arguments");
  });

  it("tools where the template has no place for them", () => {
    expect(refusal(() => renderChat("{{ messages[0].content }}", user, { tools })).parameter).toBe("tools");
  });

  it("a template that is no Jinja, and one that fails", () => {
    expect(refusal(() => renderChat("{% if %}", user)).message).toMatch(/not valid Jinja/);
    expect(refusal(() => renderChat("{{ messages.x.y() }}", user)).message).toMatch(/template fails/);
  });

  it.each([
    [
      "loops within loops",
      "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
    ],
    [
      "a text that doubles",
      `{% set n = namespace(x="ab") %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}`,
    ],
    ["a long range", "{% for a in range(99999999999) %}{% endfor %}"],
    ["a macro that calls itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"],
  ])("%s", (_name, template) => {
    expect(refusal(() => renderChat(template, user)).message).toMatch(/does not come to an end/);
  });
});

it("formats times as Python does", () => {
  expect(formatTime(now, "%A %d %B %Y %H:%M:%S %I%p %a %b %y %% %Q")).toBe(
    "Thursday 09 July 2026 15:04:00 03PM Thu Jul 26 % %Q",
  );
});
