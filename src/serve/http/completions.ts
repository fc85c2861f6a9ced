import { randomUUID } from "node:crypto";
import type { GenerateRequest, Generation, Piece } from "../engine/types.ts";
import { collect, pump, startAll, usage } from "./answers.ts";
import { invalid } from "./errors.ts";
import { type Exchange, resolveModel, type Service } from "./exchange.ts";
import { legacyLogprobs } from "./logprobs.ts";
import { type Input, readInputs } from "./prompts.ts";
import { readGrammar } from "./response_format.ts";
import { answerLength, readSampling } from "./sampling.ts";
import { type CompletionBody, completionBody, unsupportedCompletion } from "./schema/completions.ts";
import { refuseUnsupported, validate } from "./schema/validate.ts";
import { failStream } from "./stream_failure.ts";
import { tenantOf } from "./tenant.ts";

/** A checked request: what to run, and what to say before each answer. */
interface Prepared {
  readonly body: CompletionBody;
  readonly id: string;
  readonly model: string;
  readonly requests: readonly GenerateRequest[];
  /** By prompt: its text where `echo` asks for it, otherwise nothing. */
  readonly echoes: readonly string[];
}

function prepare(raw: Record<string, unknown>, exchange: Exchange, service: Service): Prepared {
  refuseUnsupported(raw, unsupportedCompletion);
  const body = validate(completionBody, raw);
  const { engine, limits } = service;
  const model = resolveModel(body.model, service);
  const sampling = readSampling(body, engine, limits.answers);
  if (body.echo && body.logprobs !== undefined) {
    throw invalid("echo", "'echo' together with 'logprobs' is not supported", "unsupported_parameter");
  }
  const grammar = readGrammar(body, service.grammars);
  const inputs = readInputs(body.prompt, engine, {
    parameter: "prompt",
    limit: Math.floor(limits.answers / body.n),
    special: body.add_special_tokens,
  });
  const id = `cmpl-${randomUUID()}`;
  const tenant = tenantOf(exchange, body.user);
  const requests = inputs.map(({ tokens }, index): GenerateRequest => {
    if (tokens.length === 0) throw invalid("prompt", "invalid 'prompt': it has no tokens");
    const maxTokens = answerLength(body.max_tokens, tokens.length, engine, {
      prompt: "prompt",
      length: "max_tokens",
    });
    return {
      ...sampling,
      ...(body.logprobs === undefined ? {} : { logprobs: body.logprobs }),
      ...(grammar === undefined ? {} : { grammar }),
      ...(tenant === undefined ? {} : { tenant }),
      prompt: tokens,
      maxTokens,
      id: inputs.length === 1 ? id : `${id}-${index}`,
    };
  });
  const echo = ({ text, tokens }: Input): string => text ?? engine.detokenize(tokens);
  return { body, id, model, requests, echoes: inputs.map((input) => (body.echo ? echo(input) : "")) };
}

/** POST /v1/completions. @throws ApiError before anything was answered */
export async function handleCompletions(
  raw: Record<string, unknown>,
  exchange: Exchange,
  service: Service,
): Promise<void> {
  const prepared = prepare(raw, exchange, service);
  const generations = startAll(service.engine, prepared.requests, exchange);
  exchange.promptTokens = generations.reduce((sum, { prompt }) => sum + prompt.length, 0);
  if (prepared.body.stream) return await stream(prepared, generations, exchange, service);
  const { body, id, model, echoes } = prepared;
  const answers = await collect(generations, body.n, exchange);
  exchange.sendJson({
    id,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model,
    choices: answers.map((answer, index) => ({
      index,
      text: echoes[Math.floor(index / body.n)] + answer.text,
      logprobs: body.logprobs === undefined ? null : legacyLogprobs(answer.logprobs, 0, body.logprobs),
      finish_reason: answer.finishReason,
      stop_reason: answer.stopReason ?? null,
    })),
    usage: usage(generations, exchange),
  });
}

async function stream(
  { body, id, model, echoes }: Prepared,
  generations: readonly Generation[],
  exchange: Exchange,
  service: Service,
): Promise<void> {
  const created = Math.floor(Date.now() / 1000);
  const withUsage = body.stream_options?.include_usage === true;
  const opening = JSON.stringify({ id, object: "text_completion", created, model }).slice(0, -1);
  const head = `${opening},"choices":[{"index":`;
  const tail = withUsage ? `}],"usage":null}` : "}]}";
  /** UTF-16 code units of each answer so far; undefined before its first event. */
  const offsets = new Array<number | undefined>(generations.length * body.n);
  const events = exchange.openStream(service.stream);

  const take = (which: number, piece: Piece): void => {
    const index = which * body.n + piece.index;
    const offset = offsets[index];
    const text = offset === undefined ? echoes[which]! + piece.text : piece.text;
    const finished = piece.finishReason !== undefined;
    // Half a character, or a token without text: nothing to tell yet.
    if (text === "" && !finished && piece.logprobs === undefined) return;
    offsets[index] = (offset ?? 0) + text.length;
    const logprobs =
      piece.logprobs === undefined
        ? "null"
        : JSON.stringify(legacyLogprobs(piece.logprobs, offset ?? 0, body.logprobs ?? 0));
    const end = finished
      ? `"${piece.finishReason}","stop_reason":${JSON.stringify(piece.stopReason ?? null)}`
      : "null";
    events.send(
      `${head}${index},"text":${JSON.stringify(text)},"logprobs":${logprobs},"finish_reason":${end}${tail}`,
    );
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
