/**
 * The merges of a SentencePiece vocabulary (Kudo and Richardson, arXiv 1808.06226). SentencePiece's BPE joins
 * any two neighbours that together are a piece, the piece of the best score first; that is what a list of merges
 * does that holds every way to cut every piece in two, ordered by score.
 * @param isPiece whether a token takes part: control tokens and bytes do not
 * @returns pairs, the first to be merged first; of one piece, the cut with the shortest left part first
 */
export function mergesByScore(
  tokens: readonly string[],
  scores: ArrayLike<number>,
  isPiece: (id: number) => boolean,
): (readonly [string, string])[] {
  const pieces = new Set<string>();
  const ordered: number[] = [];
  tokens.forEach((token, id) => {
    if (!isPiece(id) || pieces.has(token)) return;
    pieces.add(token);
    ordered.push(id);
  });
  ordered.sort((a, b) => scores[b]! - scores[a]! || a - b);
  const merges: (readonly [string, string])[] = [];
  for (const id of ordered) {
    const token = tokens[id]!;
    for (let cut = 1; cut < token.length; cut++) {
      const left = token.slice(0, cut);
      if (!pieces.has(left) && !isOneCharacter(left)) continue;
      const right = token.slice(cut);
      if (pieces.has(right) || isOneCharacter(right)) merges.push([left, right]);
    }
  }
  return merges;
}

/** One code point: what merging starts from, whether or not it is a piece itself. */
function isOneCharacter(text: string): boolean {
  const point = text.codePointAt(0)!;
  if (point >= 0xd800 && point <= 0xdfff) return false;
  return text.length === (point > 0xffff ? 2 : 1);
}

/**
 * Scores that make SentencePiece merge in the order of a list of merges: -1 for the piece that is merged first,
 * then -2, and so on; pieces that no merge makes come last.
 */
export function scoresOfMerges(
  tokens: readonly string[],
  merges: readonly (readonly [string, string])[],
): Float32Array {
  const ranks = new Map<string, number>();
  for (const [left, right] of merges) {
    const merged = left + right;
    if (!ranks.has(merged)) ranks.set(merged, ranks.size);
  }
  return Float32Array.from(tokens, (token) => -1 - (ranks.get(token) ?? ranks.size));
}
