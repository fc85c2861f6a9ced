import { describe, expect, it } from "vitest";
import { allowedTokens, allowsText, randomText, testTokens } from "../../../test/support/structured_walk.ts";
import { createToolCallParser } from "../chat/tools.ts";
import type { ToolChoice, ToolDefinition, ToolFormat } from "../chat/types.ts";
import { RequestError } from "../engine/errors.ts";
import { GrammarCompiler } from "./compiler.ts";

const tools: ToolDefinition[] = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: {
        type: "object",
        properties: { city: { enum: ["Bern", "Zürich"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
  { type: "function", function: { name: "now" } },
];
const named: ToolChoice = { type: "function", function: { name: "weather" } };
const tokens = testTokens();
const compiler = new GrammarCompiler(tokens);
const call = '{"name": "weather", "arguments": {"city": "Bern", "days": 3}}';

function grammar(format: ToolFormat, choice: ToolChoice, parallel = true) {
  return compiler.toolCalls(tools, { choice, format, parallel });
}

describe("calls that must be made", () => {
  it.each([
    ["hermes", named, `<tool_call>\n${call}\n</tool_call>`, true],
    ["hermes", "required", `<tool_call>\n${call}\n</tool_call>\n<tool_call>\n${call}\n</tool_call>`, true],
    ["hermes", named, `<tool_call>\n${call}\n</tool_call>\n<tool_call>\n${call}\n</tool_call>`, false],
    ["hermes", "required", '<tool_call>\n{"name":"now","arguments":{"any": [1]}}\n</tool_call>', true],
    ["hermes", named, '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>', false],
    [
      "hermes",
      "required",
      '<tool_call>\n{"name":"weather","arguments":{"city":"Rome"}}\n</tool_call>',
      false,
    ],
    ["hermes", "required", "", false],
    ["llama3_json", "required", '{"name": "weather", "parameters": {"city": "Zürich"}}', true],
    ["llama3_json", "required", '{"name": "weather", "parameters": {"city": "Bern", "days": 10}}', false],
    ["mistral", "required", `[TOOL_CALLS][${call}, ${call}]`, true],
    ["mistral", named, `[TOOL_CALLS][${call}]`, true],
    ["mistral", named, `[TOOL_CALLS][${call}, ${call}]`, false],
    ["mistral", "required", "[TOOL_CALLS][]", false],
  ] as const)("in the format of %s, %j: %s", (format, choice, text, right) => {
    expect(allowsText(grammar(format, choice as ToolChoice), tokens, text)).toBe(right);
  });

  it("are one where no parallel ones are wanted", () => {
    expect(allowsText(grammar("mistral", "required", false), tokens, `[TOOL_CALLS][${call},${call}]`)).toBe(
      false,
    );
  });

  it.each(["hermes", "llama3_json", "mistral"] as const)("are read by the parser of %s", (format) => {
    for (let seed = 0; seed < 15; seed++) {
      const text = randomText(grammar(format, "required"), tokens, seed, 150).toString();
      const parser = createToolCallParser(format, { tools: ["weather", "now"] });
      const events = [...parser.push(text), ...parser.finish()];
      expect(events.filter((event) => event.type === "text")).toEqual([]);
      expect(parser.calls).toBeGreaterThan(0);
      const pieces = new Map<number, string>();
      for (const event of events) {
        if (event.type === "arguments") pieces.set(event.index, (pieces.get(event.index) ?? "") + event.text);
      }
      for (const piece of pieces.values()) expect(JSON.parse(piece)).toBeTypeOf("object");
    }
  });

  it("begin with the special token where the vocabulary has one", () => {
    const own = testTokens([], ["[TOOL_CALLS]", "[INST]"]);
    const mark = own.vocabularySize - 3;
    const constraint = new GrammarCompiler(own)
      .toolCalls(tools, { choice: "required", format: "mistral" })
      .start();
    const mask = new Int32Array(Math.ceil(own.vocabularySize / 32));
    constraint.fillMask(mask);
    const allowed = allowedTokens(mask, own.vocabularySize);
    expect(allowed).toContain(mark);
    expect(allowed).not.toContain(mark + 1);
    constraint.accept(mark);
    constraint.fillMask(mask);
    // "[" and the pieces that go on with it.
    const texts = allowedTokens(mask, own.vocabularySize).map((id) => own.tokenText(id).text);
    expect(texts).toEqual(["["]);
  });

  it("are refused with the function's name where its parameters cannot be held to, or it is not there", () => {
    const wrong: ToolDefinition[] = [
      {
        type: "function",
        function: { name: "odd", parameters: { type: "object", properties: { a: { not: {} } } } },
      },
    ];
    const refused = (run: () => unknown) => {
      try {
        run();
      } catch (error) {
        expect(error).toBeInstanceOf(RequestError);
        return (error as RequestError).message;
      }
      throw new Error("was not refused");
    };
    const message = refused(() => compiler.toolCalls(wrong, { choice: "required", format: "hermes" }));
    expect(message).toMatch(/"odd"[\s\S]*\$\.properties\.a\.not/);
    const other: ToolChoice = { type: "function", function: { name: "other" } };
    expect(refused(() => grammar("hermes", other))).toMatch(/not among the tools[\s\S]*"other"/);
    expect(refused(() => compiler.toolCalls([], { choice: "required", format: "hermes" }))).toMatch(
      /no tool/,
    );
  });
});
