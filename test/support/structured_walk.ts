import type { Grammar } from "../../src/serve/structured/types.ts";
import type { TokenSource } from "../../src/serve/structured/vocabulary.ts";

/** Texts of more than one byte that the tokens of tests have: words, marks of JSON, pieces of characters. */
const pieces = [
  ...[
    '{"',
    '":',
    '": "',
    '", "',
    '"}',
    '"]',
    "}}",
    "]}",
    "},",
    "}]",
    ", ",
    ": ",
    "[]",
    "{}",
    '""',
    "[[",
    ',"',
    '"a',
  ],
  ...["true", "false", "null", "na", "name", "nam", "me", " the", "the", "12", "123", "0.", "e1", "-1", ".5"],
  ...[
    "\\u",
    "\\n",
    '\\"',
    "\\\\",
    "\\ud8",
    "é",
    "日本",
    "日",
    "😀",
    "a\\",
    'x"',
    '":1',
    "2024-",
    "-01",
    "T1",
    ":00",
  ],
  ...["         ", "tag", '"tag"', '{"tag":"', "AB", "abc", "@", ".com", "\n", "\t"],
];

/** A vocabulary of every byte, of common pieces, and of pieces that cut characters. The last id ends a text. */
export function testTokens(
  more: readonly (string | Uint8Array)[] = [],
  special: readonly string[] = [],
): TokenSource {
  const tokens: { bytes: number[]; text: string; special: boolean }[] = [];
  const add = (bytes: Uint8Array) =>
    tokens.push({ bytes: [...bytes], text: Buffer.from(bytes).toString(), special: false });
  for (let byte = 0; byte < 256; byte++) add(Uint8Array.of(byte));
  for (const piece of [...pieces, ...more]) add(typeof piece === "string" ? Buffer.from(piece) : piece);
  for (const cut of ["é", "日", "😀"]) {
    const bytes = Buffer.from(cut);
    for (let i = 2; i < bytes.length; i++) add(bytes.subarray(0, i));
    add(Buffer.concat([Buffer.from('"'), bytes.subarray(0, 1)]));
    add(Buffer.concat([bytes.subarray(1), Buffer.from('"')]));
  }
  for (const text of [...special, "<end>"])
    tokens.push({ bytes: [...Buffer.from(text)], text, special: true });
  return {
    vocabularySize: tokens.length,
    endTokens: [tokens.length - 1],
    tokenText: (id) => tokens[id]!,
  };
}

/** The ids that a mask allows. */
export function allowedTokens(mask: Int32Array, size: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < size; id++) if (((mask[id >> 5]! >>> (id & 31)) & 1) === 1) ids.push(id);
  return ids;
}

/** A small random number generator (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Bytes that lead to the end of a JSON text, the best first. */
const closing = ['"', "@", ".", "}", "]", "n", "0", "t", "f", ","].map((text) => text.charCodeAt(0));

/**
 * A random text of a grammar: random allowed tokens, and after `steps` of them those that end it soon.
 * @returns its bytes
 */
export function randomText(grammar: Grammar, source: TokenSource, seed: number, steps = 60): Buffer {
  const random = randomNumbers(seed);
  const constraint = grammar.start();
  const mask = new Int32Array(Math.ceil(source.vocabularySize / 32));
  const bytes: number[] = [];
  const end = source.endTokens[0]!;
  for (let step = 0; step < 5000; step++) {
    constraint.fillMask(mask);
    const allowed = allowedTokens(mask, source.vocabularySize);
    if (allowed.length === 0) throw new Error(`no token may follow ${Buffer.from(bytes).toString()}`);
    let token = allowed[Math.floor(random() * allowed.length)]!;
    if (step >= steps) {
      const soon = closing.find((byte) => allowed.includes(byte));
      // Now and then another one: a pattern may ask for it.
      if (soon !== undefined && random() < 0.8) token = soon;
      if (allowed.includes(end)) token = end;
    }
    constraint.accept(token);
    if (token === end) return Buffer.from(bytes);
    bytes.push(...source.tokenText(token).bytes);
  }
  throw new Error(`no end in sight: ${Buffer.from(bytes).toString().slice(0, 300)}`);
}

const tokenLists = new WeakMap<TokenSource, number[][]>();

function tokensByFirstByte(source: TokenSource): number[][] {
  let lists = tokenLists.get(source);
  if (lists === undefined) {
    lists = Array.from({ length: 256 }, () => []);
    for (let id = 0; id < source.vocabularySize; id++) {
      const token = source.tokenText(id);
      if (!token.special && token.bytes.length > 0) lists[token.bytes[0]!]!.push(id);
    }
    tokenLists.set(source, lists);
  }
  return lists;
}

/**
 * Whether a grammar lets a text be written, with tokens cut at random, and end there. Checks the mask before every
 * token.
 */
export function allowsText(
  grammar: Grammar,
  source: TokenSource,
  text: string | Uint8Array,
  seed = 1,
): boolean {
  const random = randomNumbers(seed);
  const bytes = Buffer.from(text as string);
  const tokens = tokensByFirstByte(source);
  const constraint = grammar.start();
  const mask = new Int32Array(Math.ceil(source.vocabularySize / 32));
  const allows = (id: number) => ((mask[id >> 5]! >>> (id & 31)) & 1) === 1;
  for (let place = 0; place < bytes.length; ) {
    const fitting = tokens[bytes[place]!]!.filter((id) => {
      const token = source.tokenText(id).bytes;
      return token.every((byte, i) => bytes[place + i] === byte);
    });
    const token = fitting[Math.floor(random() * fitting.length)]!;
    constraint.fillMask(mask);
    if (!allows(token)) return false;
    constraint.accept(token);
    place += source.tokenText(token).bytes.length;
  }
  constraint.fillMask(mask);
  return source.endTokens.some(allows);
}
