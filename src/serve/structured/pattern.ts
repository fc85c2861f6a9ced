import type { CodePoints } from "./code_points.ts";

/** A regular expression as a tree. Texts are sequences of Unicode scalar values. */
export type Pattern =
  | { readonly kind: "set"; readonly set: CodePoints }
  | { readonly kind: "sequence"; readonly parts: readonly Pattern[] }
  | { readonly kind: "choice"; readonly options: readonly Pattern[] }
  | { readonly kind: "repeat"; readonly body: Pattern; readonly minimum: number; readonly maximum: number }
  /** `^` and `$`: the beginning and the end of the text. */
  | { readonly kind: "start" }
  | { readonly kind: "end" };

export const emptyPattern: Pattern = { kind: "sequence", parts: [] };

export function setOf(...pairs: readonly number[]): Pattern {
  return { kind: "set", set: pairs };
}

export function sequence(...parts: readonly Pattern[]): Pattern {
  return parts.length === 1 ? parts[0]! : { kind: "sequence", parts };
}

/** Any one of the options; nothing matches a choice without options. */
export function choice(...options: readonly Pattern[]): Pattern {
  return options.length === 1 ? options[0]! : { kind: "choice", options };
}

export function repeat(body: Pattern, minimum: number, maximum: number): Pattern {
  return { kind: "repeat", body, minimum, maximum };
}

export function optional(body: Pattern): Pattern {
  return repeat(body, 0, 1);
}

/** The text itself. */
export function literal(text: string): Pattern {
  const parts: Pattern[] = [];
  for (const character of text) {
    const point = character.codePointAt(0)!;
    parts.push(setOf(point, point));
  }
  return { kind: "sequence", parts };
}

/** One of the characters of a text, each a UTF-16 unit. */
export function anyOf(characters: string): Pattern {
  return choice(...Array.from(characters, literal));
}

/** Decimal digits from `low` to `high`. */
export function digits(low = 0, high = 9): Pattern {
  return setOf(0x30 + low, 0x30 + high);
}
