import type { ToolChoice, ToolDefinition, ToolFormat } from "../chat/types.ts";
import { RequestError } from "../engine/errors.ts";
import { JsonRules } from "./json_rules.ts";
import { limits } from "./limits.ts";
import { BoundGrammar, SharedTokens } from "./mask.ts";
import { type Network, NetworkBuilder } from "./network.ts";
import { parsePattern } from "./pattern_parser.ts";
import { GrammarProblem, refusingProblems } from "./problem.ts";
import { schemaNetwork } from "./schema_network.ts";
import { determinize, type TextAutomaton, textsAutomaton } from "./text_automaton.ts";
import { TextRules } from "./text_rules.ts";
import { toolCallNetwork } from "./tool_calls.ts";
import type { Grammar } from "./types.ts";
import { type TokenSource, Vocabulary } from "./vocabulary.ts";

/**
 * A network of the JSON texts that match a schema: compact, at most one space after commas and colons, properties in
 * the order in which the schema lists them. See docs/serving.md for the keywords.
 * @throws RequestError `invalid_request` that names the place in the schema: an unsupported or unknown keyword, a
 * contradiction, a $ref without progress, or a schema or pattern past the limits
 */
export function compileJsonSchema(schema: unknown, parameter = "response_format"): Network {
  return refusingProblems(parameter, () => schemaNetwork(schema));
}

/** A network of any JSON object. */
export function jsonObjectNetwork(): Network {
  const json = new JsonRules();
  return json.builder.finish(json.object);
}

/**
 * A network of the texts that a regular expression matches as a whole (ECMA-262, without lookaround, backreferences,
 * word boundaries and flags).
 * @throws RequestError `invalid_request`
 */
export function compileRegex(pattern: string, parameter = "guided_regex"): Network {
  return refusingProblems(parameter, () => textNetwork(determinize(parsePattern(pattern))));
}

/** A network of the given texts. @throws RequestError `invalid_request` for none or too many */
export function compileChoices(texts: readonly string[], parameter = "guided_choice"): Network {
  return refusingProblems(parameter, () => {
    if (texts.length === 0) throw new GrammarProblem("a choice needs at least one text");
    if (texts.length > limits.schemaValues) {
      throw new GrammarProblem("a choice has too many texts", { expected: `at most ${limits.schemaValues}` });
    }
    return textNetwork(textsAutomaton(texts));
  });
}

function textNetwork(automaton: TextAutomaton): Network {
  const builder = new NetworkBuilder();
  const rule = builder.rule("$");
  new TextRules(builder).automaton(automaton, builder.start(rule), builder.end(rule), "plain");
  return builder.finish(rule);
}

/** How the calls of a tool choice are to be written. */
export interface ToolCallOptions {
  /** "required": at least one call of any function; a named one: a call of it. */
  readonly choice: ToolChoice;
  readonly format: ToolFormat;
  /** Whether there may be several calls; true by default. A named choice is one call. */
  readonly parallel?: boolean;
  readonly parameter?: string;
}

/** Grammars for the tokens of one model. Keeps the trie of its tokens and the grammars that were last used. */
export class GrammarCompiler {
  readonly #source: TokenSource;
  readonly #capacity: number;
  readonly #grammars = new Map<string, BoundGrammar>();
  #shared: SharedTokens | undefined;

  /** @param source the tokens; a ServingEngine is one. They are read when the first grammar is asked for. */
  constructor(source: TokenSource, options: { readonly cachedGrammars?: number } = {}) {
    this.#source = source;
    this.#capacity = Math.max(1, options.cachedGrammars ?? 32);
  }

  /** The tokens as a trie, made when first asked for. Takes some tenths of a second: ask when the model is loaded. */
  get vocabulary(): Vocabulary {
    this.#shared ??= new SharedTokens(new Vocabulary(this.#source));
    return this.#shared.vocabulary;
  }

  /** JSON that matches a schema. @throws RequestError `invalid_request`, see compileJsonSchema */
  jsonSchema(schema: unknown, options: { readonly parameter?: string } = {}): Grammar {
    const parameter = options.parameter ?? "response_format";
    return this.#bound("schema", schema, parameter, () => compileJsonSchema(schema, parameter));
  }

  /** Any JSON object. */
  jsonObject(options: { readonly parameter?: string } = {}): Grammar {
    return this.#bound("object", null, options.parameter ?? "response_format", jsonObjectNetwork);
  }

  /** Texts that a regular expression matches as a whole. @throws RequestError `invalid_request` */
  regex(pattern: string, options: { readonly parameter?: string } = {}): Grammar {
    const parameter = options.parameter ?? "guided_regex";
    return this.#bound("regex", pattern, parameter, () => compileRegex(pattern, parameter));
  }

  /** One of the texts. @throws RequestError `invalid_request` */
  choices(texts: readonly string[], options: { readonly parameter?: string } = {}): Grammar {
    const parameter = options.parameter ?? "guided_choice";
    return this.#bound("choices", texts, parameter, () => compileChoices(texts, parameter));
  }

  /**
   * Calls of functions whose arguments match their parameters' schemas, as the model's format writes them.
   * @throws RequestError `invalid_request` for a function that is not there or whose schema is not supported
   */
  toolCalls(tools: readonly ToolDefinition[], options: ToolCallOptions): Grammar {
    const parameter = options.parameter ?? "tools";
    const { choice, format, parallel = true } = options;
    return this.#bound("tools", [tools, choice, format, parallel], parameter, () =>
      refusingProblems(parameter, () => toolCallNetwork(tools, { choice, format, parallel })),
    );
  }

  #bound(kind: string, source: unknown, parameter: string, build: () => Network): Grammar {
    const key = `${kind} ${keyText(source, parameter)}`;
    let grammar = this.#grammars.get(key);
    if (grammar === undefined) {
      const network = build();
      const { missingCharacters } = this.vocabulary;
      if (missingCharacters !== "") {
        throw new RequestError("invalid_request", "this model's tokens cannot spell structured output", {
          parameter,
          expected: "a token for every printable ASCII character",
          received: `none for ${missingCharacters}`,
        });
      }
      grammar = new BoundGrammar(network, this.#shared!);
    }
    // The one used last is the last to go.
    this.#grammars.delete(key);
    this.#grammars.set(key, grammar);
    if (this.#grammars.size > this.#capacity) {
      const oldest = this.#grammars.keys().next();
      if (!oldest.done) this.#grammars.delete(oldest.value);
    }
    return grammar;
  }
}

function keyText(source: unknown, parameter: string): string {
  return refusingProblems(parameter, () => JSON.stringify(source) ?? "undefined");
}
