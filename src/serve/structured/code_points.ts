/**
 * Sets of Unicode scalar values (code points without surrogates), as sorted pairs `[low, high, low, high, …]`
 * with gaps between the pairs.
 */
export type CodePoints = readonly number[];

const last = 0x10ffff;

/** Every scalar value. */
export const allCodePoints: CodePoints = [0, 0xd7ff, 0xe000, last];
/** The set of pairs in any order, surrogates left out. */
export function codePoints(pairs: readonly number[]): CodePoints {
  return intersection(merged(pairs), allCodePoints);
}

function merged(pairs: readonly number[]): CodePoints {
  const ranges: [number, number][] = [];
  for (let i = 0; i < pairs.length; i += 2) ranges.push([pairs[i]!, pairs[i + 1]!]);
  ranges.sort((a, b) => a[0] - b[0]);
  const result: number[] = [];
  for (const [low, high] of ranges) {
    if (result.length > 0 && low <= result.at(-1)! + 1)
      result[result.length - 1] = Math.max(result.at(-1)!, high);
    else result.push(low, high);
  }
  return result;
}

export function union(...sets: CodePoints[]): CodePoints {
  return merged(sets.flat());
}

/** Scalar values that are not in the set. */
export function complement(set: CodePoints): CodePoints {
  const result: number[] = [];
  let next = 0;
  for (let i = 0; i < set.length; i += 2) {
    if (set[i]! > next) result.push(next, set[i]! - 1);
    next = set[i + 1]! + 1;
  }
  if (next <= last) result.push(next, last);
  return intersection(result, allCodePoints);
}

export function intersection(a: CodePoints, b: CodePoints): CodePoints {
  const result: number[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    const low = Math.max(a[i]!, b[j]!);
    const high = Math.min(a[i + 1]!, b[j + 1]!);
    if (low <= high) result.push(low, high);
    if (a[i + 1]! < b[j + 1]!) i += 2;
    else j += 2;
  }
  return result;
}

/** A sequence of byte ranges `[low, high, low, high, …]`, one pair a byte. */
export type ByteSequence = readonly number[];

/** The UTF-8 of a set, as sequences of byte ranges that share no text. */
export function utf8Sequences(set: CodePoints): ByteSequence[] {
  const result: ByteSequence[] = [];
  const lengths = [0x7f, 0x7ff, 0xffff, last];
  for (let i = 0; i < set.length; i += 2) {
    let low = set[i]!;
    const high = set[i + 1]!;
    for (let length = 1; length <= 4 && low <= high; length++) {
      const end = Math.min(high, lengths[length - 1]!);
      if (low > end) continue;
      splitRange(low, end, length, result);
      low = end + 1;
    }
  }
  return result;
}

/** Splits a range of code points of one encoded length where the ranges of single bytes would not be independent. */
function splitRange(low: number, high: number, length: number, result: ByteSequence[]): void {
  for (let i = 1; i < length; i++) {
    const mask = 2 ** (6 * i) - 1;
    if ((low & ~mask) === (high & ~mask)) continue;
    if ((low & mask) !== 0) {
      splitRange(low, low | mask, length, result);
      splitRange((low | mask) + 1, high, length, result);
      return;
    }
    if ((high & mask) !== mask) {
      splitRange(low, (high & ~mask) - 1, length, result);
      splitRange(high & ~mask, high, length, result);
      return;
    }
  }
  const from = Buffer.from(String.fromCodePoint(low));
  const to = Buffer.from(String.fromCodePoint(high));
  const sequence: number[] = [];
  for (let i = 0; i < length; i++) sequence.push(from[i]!, to[i]!);
  result.push(sequence);
}
