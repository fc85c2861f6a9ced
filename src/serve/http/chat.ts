import { randomUUID } from "node:crypto";
import type { ToolCallEvent } from "../chat/types.ts";
import type { FinishReason, GenerateRequest, Generation, Piece } from "../engine/types.ts";
import { type Answer, collect, pump, startAll, usage } from "./answers.ts";
import { tokenizeConversation } from "./conversation.ts";
import { invalid } from "./errors.ts";
import { type Exchange, resolveModel, type Service } from "./exchange.ts";
import { chatLogprobs } from "./logprobs.ts";
import { readGrammar } from "./response_format.ts";
import { answerLength, readSampling } from "./sampling.ts";
import { type ChatBody, chatBody, unsupportedChat } from "./schema/chat.ts";
import { refuseUnsupported, validate } from "./schema/validate.ts";
import { failStream } from "./stream_failure.ts";
import { tenantOf } from "./tenant.ts";
import { parserOf, readToolUse, type ToolUse } from "./tool_calls.ts";

interface Prepared {
  readonly body: ChatBody;
  readonly id: string;
  readonly model: string;
  readonly request: GenerateRequest;
  readonly toolUse: ToolUse | undefined;
}

function readLogprobs(body: ChatBody): number | undefined {
  if (body.logprobs) return body.top_logprobs ?? 0;
  if (body.top_logprobs === undefined || body.top_logprobs === 0) return undefined;
  throw invalid("top_logprobs", "'top_logprobs' is only for requests with 'logprobs': true");
}

function prepare(raw: Record<string, unknown>, exchange: Exchange, service: Service): Prepared {
  refuseUnsupported(raw, unsupportedChat);
  const body = validate(chatBody, raw);
  const { engine, limits } = service;
  const model = resolveModel(body.model, service);
  const sampling = readSampling(body, engine, limits.answers);
  const logprobs = readLogprobs(body);
  const toolUse = readToolUse(body, service);
  const grammar = toolUse?.grammar ?? readGrammar(body, service.grammars);
  const prompt = tokenizeConversation(body, toolUse?.tools ?? [], service);
  const asked = body.max_completion_tokens ?? body.max_tokens;
  const length = body.max_completion_tokens === undefined ? "max_tokens" : "max_completion_tokens";
  const maxTokens = answerLength(asked, prompt.length, engine, { prompt: "messages", length });
  const tenant = tenantOf(exchange, body.user);
  const id = `chatcmpl-${randomUUID()}`;
  const request: GenerateRequest = {
    ...sampling,
    ...(toolUse?.special === true ? { skipSpecialTokens: false } : {}),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(grammar === undefined ? {} : { grammar }),
    ...(tenant === undefined ? {} : { tenant }),
    prompt,
    maxTokens,
    id,
  };
  return { body, id, model, request, toolUse };
}

/** What OpenAI calls the end of an answer. */
function finishReason(reason: FinishReason, calls: number): string {
  return reason === "stop" && calls > 0 ? "tool_calls" : reason;
}

/** POST /v1/chat/completions. @throws ApiError or RequestError before anything was answered */
export async function handleChat(
  raw: Record<string, unknown>,
  exchange: Exchange,
  service: Service,
): Promise<void> {
  const prepared = prepare(raw, exchange, service);
  const generations = startAll(service.engine, [prepared.request], exchange);
  exchange.promptTokens = generations[0]!.prompt.length;
  if (prepared.body.stream) return await stream(prepared, generations, exchange, service);
  const { body, id, model, toolUse } = prepared;
  const answers = await collect(generations, body.n, exchange);
  exchange.sendJson({
    id,
    object: "chat.completion",
    created: Math.floor(Date.now() / 1000),
    model,
    choices: answers.map((answer, index) => ({
      index,
      ...describeMessage(answer, toolUse),
      logprobs: body.logprobs ? chatLogprobs(answer.logprobs) : null,
      stop_reason: answer.stopReason ?? null,
    })),
    usage: usage(generations, exchange),
  });
}

/** The message of a whole answer, and why it ended. */
function describeMessage(answer: Answer, toolUse: ToolUse | undefined): object {
  const message = { role: "assistant", content: answer.text as string | null, refusal: null };
  if (toolUse === undefined) return { message, finish_reason: answer.finishReason };
  const parser = parserOf(toolUse, false);
  const calls: { id: string; type: "function"; function: { name: string; arguments: string } }[] = [];
  let text = "";
  for (const event of [...parser.push(answer.text), ...parser.finish()]) {
    if (event.type === "text") text += event.text;
    else if (event.type === "arguments") calls[event.index]!.function.arguments += event.text;
    else
      calls[event.index] = { id: event.id, type: "function", function: { name: event.name, arguments: "" } };
  }
  const reason = finishReason(answer.finishReason, calls.length);
  if (calls.length === 0) return { message: { ...message, content: text }, finish_reason: reason };
  // White space between calls is not worth a content.
  const content = text.trim() === "" ? null : text;
  return { message: { ...message, content, tool_calls: calls }, finish_reason: reason };
}

/** The `delta` of an event of the tool parser, as JSON. */
function eventDelta(event: ToolCallEvent): string {
  switch (event.type) {
    case "text":
      return `{"content":${JSON.stringify(event.text)}}`;
    case "call": {
      const { index, id, name } = event;
      return JSON.stringify({
        tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }],
      });
    }
    case "arguments":
      return JSON.stringify({ tool_calls: [{ index: event.index, function: { arguments: event.text } }] });
    default:
      return event satisfies never;
  }
}

async function stream(
  { body, id, model, toolUse }: Prepared,
  generations: readonly Generation[],
  exchange: Exchange,
  service: Service,
): Promise<void> {
  const created = Math.floor(Date.now() / 1000);
  const withUsage = body.stream_options?.include_usage === true;
  const opening = JSON.stringify({ id, object: "chat.completion.chunk", created, model }).slice(0, -1);
  const head = `${opening},"choices":[{"index":`;
  const tail = withUsage ? `}],"usage":null}` : "}]}";
  const begun = new Array<boolean>(body.n).fill(false);
  const parsers =
    toolUse === undefined ? undefined : Array.from({ length: body.n }, () => parserOf(toolUse, true));
  const events = exchange.openStream(service.stream);

  const send = (index: number, delta: string, logprobs = "null", end = "null"): void =>
    events.send(`${head}${index},"delta":${delta},"logprobs":${logprobs},"finish_reason":${end}${tail}`);

  /** What a piece adds to the message: none, one or several deltas. */
  const deltas = (piece: Piece): string[] => {
    const parser = parsers?.[piece.index];
    if (parser === undefined) return piece.text === "" ? [] : [`{"content":${JSON.stringify(piece.text)}}`];
    const found = parser.push(piece.text);
    if (piece.finishReason !== undefined) found.push(...parser.finish());
    return found.map(eventDelta);
  };

  const take = (_: number, piece: Piece): void => {
    const { index } = piece;
    if (!begun[index]) {
      begun[index] = true;
      send(index, '{"role":"assistant","content":""}');
    }
    const found = deltas(piece);
    const logprobs = piece.logprobs === undefined ? "null" : JSON.stringify(chatLogprobs(piece.logprobs));
    // Each log-probability is told once: with the first delta of its piece, or alone where there is none yet.
    if (found.length === 0 && logprobs !== "null") found.push("{}");
    for (const [place, delta] of found.entries()) send(index, delta, place === 0 ? logprobs : "null");
    if (piece.finishReason === undefined) return;
    const reason = finishReason(piece.finishReason, parsers?.[index]?.calls ?? 0);
    send(index, "{}", "null", `"${reason}","stop_reason":${JSON.stringify(piece.stopReason ?? null)}`);
  };

  try {
    await pump(generations, exchange, take, events);
  } catch (error) {
    return failStream(events, error, exchange);
  }
  if (withUsage)
    events.send(`${opening},"choices":[],"usage":${JSON.stringify(usage(generations, exchange))}}`);
  events.end("[DONE]");
}
