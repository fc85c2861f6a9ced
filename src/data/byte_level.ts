/**
 * The byte alphabet of GPT-2: each byte written as one printable character. Bytes that are printable
 * in Latin-1 stand for themselves; the others take the characters from U+0100 on, in order.
 */
const characterOfByte: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    return String.fromCharCode(isPrintable ? byte : next++);
  });
})();

/** The 256 characters of the byte alphabet, by code point: the order in which they get their ids. */
export const byteAlphabet: readonly string[] = [...characterOfByte].sort((a, b) => (a < b ? -1 : 1));

const byteOf: ReadonlyMap<string, number> = new Map(
  characterOfByte.map((character, byte) => [character, byte] as const),
);

/** The byte that a character of the byte alphabet stands for; undefined for any other character. */
export function byteOfCharacter(character: string): number | undefined {
  return byteOf.get(character);
}

/** GPT-2's pre-tokenization: English contractions, words, numbers, symbols and white space. */
const pattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

const encoder = new TextEncoder();

/** Cuts a text into the words across which no token reaches. Together they are the text. */
export function preTokenize(text: string): string[] {
  return text.match(pattern) ?? [];
}

/** The UTF-8 bytes of a text, written in the byte alphabet. */
export function byteLevelText(text: string): string {
  let written = "";
  for (const byte of encoder.encode(text)) written += characterOfByte[byte]!;
  return written;
}
