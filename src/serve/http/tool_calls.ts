import { createToolCallParser, detectToolFormat, marksAreSpecial } from "../chat/tools.ts";
import type { ToolCallParser, ToolDefinition, ToolFormat } from "../chat/types.ts";
import type { Grammar } from "../structured/types.ts";
import { templateOf } from "./conversation.ts";
import { invalid } from "./errors.ts";
import type { Service } from "./exchange.ts";
import type { ChatBody } from "./schema/chat.ts";

/** How a request uses its tools. */
export interface ToolUse {
  /** What the model is told of; nothing where calls are not wanted. */
  readonly tools: readonly ToolDefinition[];
  readonly format: ToolFormat;
  /** Forces a call, where one is asked for. */
  readonly grammar: Grammar | undefined;
  /** Whether calls are marked by special tokens, which must stay in the text then. */
  readonly special: boolean;
}

/**
 * What a request wants of its tools; undefined where the answer is plain text.
 * @throws ApiError 400 for a choice that does not fit the tools
 */
export function readToolUse(body: ChatBody, service: Service): ToolUse | undefined {
  const { tools } = body;
  const choice = body.tool_choice ?? (tools.length === 0 ? "none" : "auto");
  if (choice === "none" || (choice === "auto" && tools.length === 0)) return undefined;
  if (tools.length === 0)
    throw invalid("tool_choice", "'tool_choice' asks for a call, and there are no 'tools'");
  if (typeof choice === "object" && !tools.some((tool) => tool.function.name === choice.function.name)) {
    throw invalid("tool_choice", "'tool_choice' names a function that is not among the 'tools'");
  }
  // A model whose template shows no format of its own most likely learned the widest spread one.
  const format = detectToolFormat(templateOf(service)) ?? "hermes";
  const grammar =
    choice === "auto"
      ? undefined
      : service.grammars.toolCalls(tools, {
          choice,
          format,
          parallel: body.parallel_tool_calls,
          parameter: "tools",
        });
  return { tools, format, grammar, special: marksAreSpecial(format) };
}

/** A parser for one answer. @param stream whether arguments are handed on while they are written */
export function parserOf(use: ToolUse, stream: boolean): ToolCallParser {
  return createToolCallParser(use.format, { tools: use.tools.map((tool) => tool.function.name), stream });
}
