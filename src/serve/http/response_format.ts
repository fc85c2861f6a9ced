import { z } from "zod";
import type { GrammarCompiler } from "../structured/compiler.ts";
import type { Grammar } from "../structured/types.ts";
import { invalid } from "./errors.ts";
import { validate } from "./schema/validate.ts";

const schema = z.union([z.record(z.string(), z.unknown()), z.boolean()], { error: "expected a JSON schema" });

const responseFormat = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("text") }),
    z.object({ type: z.literal("json_object") }),
    z.object({
      type: z.literal("json_schema"),
      json_schema: z.object({ name: z.string().max(256).optional(), schema }),
    }),
  ],
  { error: 'expected a "type" of "text", "json_object" or "json_schema"' },
);

/** vLLM's field beyond OpenAI's: one of them. */
const structuredOutputs = z.object({
  json: z.union([schema, z.string()]).nullish(),
  regex: z.string().min(1).max(10_000).nullish(),
  choice: z.array(z.string().min(1)).min(1).max(1024).nullish(),
  json_object: z.boolean().nullish(),
  grammar: z.null({ error: "use 'json', 'regex' or 'choice'" }).optional(),
});

/** The parts of a body that say what form the answer must have. */
export interface FormatFields {
  readonly response_format?: unknown;
  readonly structured_outputs?: unknown;
}

/**
 * The grammar that the answer must follow, or undefined where any text will do.
 * @throws ApiError, or RequestError 400 for a schema or an expression that cannot be compiled
 */
export function readGrammar(body: FormatFields, grammars: GrammarCompiler): Grammar | undefined {
  const { response_format: format, structured_outputs: structured } = body;
  const wanted = format === undefined ? undefined : readResponseFormat(format, grammars);
  if (structured === undefined) return wanted;
  if (wanted !== undefined) throw invalid("structured_outputs", "give either it or 'response_format'");
  return readStructured(structured, grammars);
}

function readResponseFormat(value: unknown, grammars: GrammarCompiler): Grammar | undefined {
  const { response_format: format } = validate(z.object({ response_format: responseFormat }), {
    response_format: value,
  });
  if (format.type === "text") return undefined;
  if (format.type === "json_object") return grammars.jsonObject();
  return grammars.jsonSchema(format.json_schema.schema);
}

function readStructured(value: unknown, grammars: GrammarCompiler): Grammar | undefined {
  const parameter = "structured_outputs";
  const { structured_outputs: wanted } = validate(z.object({ structured_outputs: structuredOutputs }), {
    structured_outputs: value,
  });
  const given = Object.values(wanted).filter((item) => item != null && item !== false);
  if (given.length !== 1) throw invalid(parameter, "give one of 'json', 'regex', 'choice' and 'json_object'");
  if (wanted.regex != null) return grammars.regex(wanted.regex, { parameter });
  if (wanted.choice != null) return grammars.choices(wanted.choice, { parameter });
  if (wanted.json == null) return grammars.jsonObject();
  return grammars.jsonSchema(typeof wanted.json === "string" ? parseSchema(wanted.json) : wanted.json, {
    parameter,
  });
}

function parseSchema(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid("structured_outputs", "'structured_outputs.json' is a text that is not JSON");
  }
}
