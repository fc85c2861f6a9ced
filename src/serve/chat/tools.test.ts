import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createToolCallParser, detectToolFormat } from "./tools.ts";
import type { ToolCallEvent, ToolFormat } from "./types.ts";

/** What a client puts together from the events. */
function collect(events: readonly ToolCallEvent[]): {
  text: string;
  calls: { name: string; arguments: string }[];
} {
  let text = "";
  const calls: { name: string; arguments: string }[] = [];
  for (const event of events) {
    if (event.type === "text") text += event.text;
    else if (event.type === "call") {
      expect(event.index).toBe(calls.length);
      calls.push({ name: event.name, arguments: "" });
    } else calls[event.index]!.arguments += event.text;
  }
  return { text, calls };
}

function parse(
  format: ToolFormat,
  pieces: readonly string[],
  options: { stream?: boolean; tools?: string[] } = {},
): { text: string; calls: { name: string; arguments: string }[] } {
  const parser = createToolCallParser(format, options);
  return collect([...pieces.flatMap((piece) => parser.push(piece)), ...parser.finish()]);
}

const weather = { name: "weather", arguments: '{"city": "Zürich", "days": [1, 2]}' };
const time = { name: "time", arguments: "{}" };

const answers: readonly { format: ToolFormat; answer: string; text: string; calls: (typeof weather)[] }[] = [
  {
    format: "hermes",
    answer: `Let me look.\n<tool_call>\n{"name": "weather", "arguments": ${weather.arguments}}\n</tool_call>`,
    text: "Let me look.\n",
    calls: [weather],
  },
  {
    format: "hermes",
    answer: `<tool_call>{"name":"weather","arguments":${weather.arguments}}</tool_call>\n<tool_call>{"arguments": {}, "name": "time"}</tool_call>\n`,
    text: "",
    calls: [weather, time],
  },
  {
    format: "hermes",
    answer: '<tool_call>\n{"name": "time"}\n</tool_call>\nDone <tool or not',
    text: "\nDone <tool or not",
    calls: [time],
  },
  {
    format: "llama3_json",
    answer: `{"name": "weather", "parameters": ${weather.arguments}}`,
    text: "",
    calls: [weather],
  },
  {
    format: "llama3_json",
    answer: `<|python_tag|>{"name": "weather", "parameters": ${weather.arguments}}; {"name": "time", "parameters": {}}`,
    text: "",
    calls: [weather, time],
  },
  { format: "llama3_json", answer: 'It is {"name": 1}.', text: 'It is {"name": 1}.', calls: [] },
  { format: "llama3_json", answer: '{"city": "Bern"}', text: '{"city": "Bern"}', calls: [] },
  {
    format: "mistral",
    answer: `[TOOL_CALLS] [{"name": "weather", "arguments": ${weather.arguments}, "id": "abc"}, {"name": "time", "arguments": {}}]`,
    text: "",
    calls: [weather, time],
  },
  { format: "mistral", answer: "Lists [1, 2] and [TOOL]", text: "Lists [1, 2] and [TOOL]", calls: [] },
];

describe("calls in an answer", () => {
  it("are found however the answer is cut, streamed or not", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...answers),
        fc.array(fc.nat(200)),
        fc.boolean(),
        (sample, cuts, stream) => {
          const places = [0, ...cuts.filter((cut) => cut < sample.answer.length).sort((a, b) => a - b)];
          const pieces = places.map((place, i) => sample.answer.slice(place, places[i + 1]));
          expect(parse(sample.format, pieces, { stream })).toEqual({
            text: sample.text,
            calls: sample.calls,
          });
        },
      ),
      { numRuns: 500 },
    );
  });

  it("stream: name first, then pieces of the arguments, with nothing held that is certain", () => {
    const parser = createToolCallParser("hermes", { createId: () => "id" });
    expect(parser.push("Hi <tool")).toEqual([{ type: "text", text: "Hi " }]);
    expect(parser.push('_call>{"name": "we')).toEqual([]);
    expect(parser.push('ather", "arguments": {"ci')).toEqual([
      { type: "call", index: 0, id: "id", name: "weather" },
      { type: "arguments", index: 0, text: '{"ci' },
    ]);
    expect(parser.push('ty": "x"')).toEqual([{ type: "arguments", index: 0, text: 'ty": "x"' }]);
    expect(parser.push("}}</tool")).toEqual([{ type: "arguments", index: 0, text: "}" }]);
    expect(parser.push("_call>")).toEqual([]);
    expect(parser.finish()).toEqual([]);
    expect(parser.calls).toBe(1);
  });

  it("hold back what may become a mark, and let it go when it does not", () => {
    const parser = createToolCallParser("mistral");
    expect(parser.push("a [TOOL_")).toEqual([{ type: "text", text: "a " }]);
    expect(parser.push("x")).toEqual([{ type: "text", text: "[TOOL_x" }]);
    expect(parser.push("[")).toEqual([]);
    expect(parser.finish()).toEqual([{ type: "text", text: "[" }]);
  });

  it.each([
    ["hermes", '<tool_call>{"name": "weather", "arguments": {"city": }}</tool_call>'],
    ["hermes", '<tool_call>{"name": "weather", "arguments": "text"}</tool_call>'],
    ["hermes", '<tool_call>weather("x")</tool_call>'],
    ["hermes", '<tool_call>{"name": "weather"'],
    ["hermes", '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'],
    ["hermes", '<tool_call>{"arguments": {}}</tool_call>'],
    ["llama3_json", '{"name": "weather", "parameters": {"a": 01}}'],
    ["llama3_json", "<|python_tag|>print(1)"],
    ["mistral", "[TOOL_CALLS]{]"],
    ["mistral", '[TOOL_CALLS][{"name": "weather", "arguments": {"a": tru}}]'],
  ] as const)("of %s that are malformed stay text: %s", (format, answer) => {
    expect(parse(format, [...answer], { stream: false, tools: ["weather"] })).toEqual({
      text: answer,
      calls: [],
    });
  });

  it("never throw and lose nothing, whatever comes", () => {
    const junk = fc.array(
      fc.constantFrom(
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        '"name"',
        ":",
        '"weather"',
        ",",
        '"arguments"',
        "[",
        "]",
        " ",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "\\",
        "x",
        ";",
      ),
    );
    fc.assert(
      fc.property(fc.constantFrom("hermes", "llama3_json", "mistral"), junk, (format, pieces) => {
        const { text, calls } = parse(format as ToolFormat, pieces, { stream: false });
        // Without a call everything is text but white space at the very end.
        if (calls.length === 0) expect(text).toBe(pieces.join(""));
        for (const call of calls) JSON.parse(call.arguments);
      }),
      { numRuns: 1000 },
    );
  });

  it("have ids that Mistral's templates take", () => {
    const [call] = createToolCallParser("mistral").push('[TOOL_CALLS][{"name":"f","arguments":{}}]');
    expect(call).toMatchObject({ type: "call", id: expect.stringMatching(/^[a-z0-9]{9}$/) as string });
  });
});

it("finds the format in a template", () => {
  expect(detectToolFormat("{% if tools %}<tool_call>{% endif %}")).toBe("hermes");
  expect(detectToolFormat("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]")).toBe("mistral");
  expect(detectToolFormat('{% if tools %}{"name": x, "parameters": y}{% endif %}')).toBe("llama3_json");
  expect(detectToolFormat("{{ messages }}")).toBeUndefined();
  expect(detectToolFormat(undefined)).toBeUndefined();
});
