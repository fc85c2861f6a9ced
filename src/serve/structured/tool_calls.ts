import type { ToolChoice, ToolDefinition, ToolFormat } from "../chat/types.ts";
import { JsonRules } from "./json_rules.ts";
import type { Network } from "./network.ts";
import { PatternCache } from "./pattern_cache.ts";
import { excerpt, GrammarProblem } from "./problem.ts";
import { SchemaRules } from "./schema_network.ts";

/** Calls in one answer at the most. */
const mostCalls = 32;

/** How each format names the arguments of a call. */
const argumentsKey: Readonly<Record<ToolFormat, string>> = {
  hermes: "arguments",
  llama3_json: "parameters",
  mistral: "arguments",
};

/**
 * A network of calls as a format writes them: for "required" at least one of any function, for a named function one
 * of it.
 * @throws GrammarProblem for a name that is not there, or a schema that is not supported
 */
export function toolCallNetwork(
  tools: readonly ToolDefinition[],
  options: { readonly choice: ToolChoice; readonly format: ToolFormat; readonly parallel: boolean },
): Network {
  const { choice, format } = options;
  const named = typeof choice === "object" ? choice.function.name : undefined;
  const chosen = named === undefined ? tools : tools.filter((tool) => tool.function.name === named);
  if (chosen.length === 0) {
    throw new GrammarProblem(
      named === undefined
        ? "there is no tool to call"
        : "tool_choice names a function that is not among the tools",
      named === undefined ? {} : { received: excerpt(JSON.stringify(named)) },
    );
  }
  const json = new JsonRules();
  const { builder } = json;
  const patterns = new PatternCache();
  const call = builder.rule("a call");
  for (const tool of chosen) {
    const { name, parameters } = tool.function;
    let rule = json.object;
    if (parameters !== undefined && parameters !== null) {
      try {
        rule = new SchemaRules(json, parameters, patterns).root();
      } catch (error) {
        if (!(error instanceof GrammarProblem)) throw error;
        throw new GrammarProblem(
          `the parameters of the function ${JSON.stringify(excerpt(name, 64))}: ${error.message}`,
          {
            ...(error.where === undefined ? {} : { where: error.where }),
            ...(error.expected === undefined ? {} : { expected: error.expected }),
            ...(error.received === undefined ? {} : { received: error.received }),
            ...(error.hint === undefined ? {} : { hint: error.hint }),
          },
        );
      }
    }
    const afterName = builder.text(
      json.separator(builder.text(builder.start(call), '{"name"'), ":"),
      JSON.stringify(name),
    );
    const key = builder.text(json.separator(afterName, ","), JSON.stringify(argumentsKey[format]));
    const close = builder.state();
    builder.call(json.separator(key, ":"), rule, close);
    builder.text(close, "}", builder.end(call));
  }
  // Several calls in one Llama answer are no format that its models know.
  const several = options.parallel && named === undefined && format !== "llama3_json";
  const root = builder.rule("calls");
  writeCalls(json, root, call, format, several ? mostCalls : 1);
  return builder.finish(root);
}

function writeCalls(json: JsonRules, root: number, call: number, format: ToolFormat, most: number): void {
  const { builder } = json;
  const end = builder.end(root);
  let state = builder.start(root);
  if (format === "llama3_json") {
    builder.call(state, call, end);
    return;
  }
  if (format === "mistral") state = builder.text(mark(json, state, "[TOOL_CALLS]"), "[");
  for (let calls = 1; calls <= most; calls++) {
    if (format === "hermes") {
      const open = builder.text(mark(json, state, "<tool_call>"), "\n");
      const close = builder.state();
      builder.call(open, call, close);
      state = mark(json, builder.text(close, "\n"), "</tool_call>");
      builder.empty(state, end);
      if (calls < most) state = builder.text(state, "\n");
    } else {
      const after = builder.state();
      builder.call(state, call, after);
      builder.text(after, "]", end);
      if (calls < most) state = json.separator(after, ",");
    }
  }
}

/** A mark of the format: one special token, or its letters. */
function mark(json: JsonRules, from: number, text: string): number {
  const to = json.builder.text(from, text);
  json.builder.special(from, text, to);
  return to;
}
