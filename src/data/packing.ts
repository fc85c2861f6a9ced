import { spannedTokens, type TokenSpans } from "./split.ts";

/** How documents become rows of `sequenceLength` tokens. */
export type PackingMode = "rows" | "best_fit";

/** A part of a row: tokens of one span that stand together. */
export interface Piece {
  readonly span: number;
  /** Index in the store of the first token. */
  readonly start: number;
  readonly length: number;
}

/** Rows made of pieces of documents. */
export interface Packing {
  readonly rowCount: number;
  /** Tokens that stand in a row; the others are left out (see `packRows`). */
  readonly packedTokens: number;
  /** The pieces of a row, in order. Together they have at most `sequenceLength` tokens. */
  pieces(row: number): Piece[];
}

/** Packs spans into rows: see `packRows` and `packBestFit`. */
export function pack(mode: PackingMode, spans: TokenSpans, sequenceLength: number): Packing {
  return mode === "rows" ? packRows(spans, sequenceLength) : packBestFit(spans, sequenceLength);
}

/**
 * Puts all spans end to end and cuts the whole into rows, wherever the cuts fall. Every row is full;
 * the last tokens, too few for a row, are left out.
 */
export function packRows(spans: TokenSpans, sequenceLength: number): Packing {
  const count = spans.starts.length;
  /** [spans + 1]: where each span starts in the whole. */
  const offsets = new Float64Array(count + 1);
  for (let span = 0; span < count; span++) {
    offsets[span + 1] = offsets[span]! + spans.ends[span]! - spans.starts[span]!;
  }
  const rowCount = Math.floor(offsets[count]! / sequenceLength);
  return {
    rowCount,
    packedTokens: rowCount * sequenceLength,
    pieces(row) {
      const rowEnd = (row + 1) * sequenceLength;
      const pieces: Piece[] = [];
      let at = row * sequenceLength;
      for (let span = lastAtOrBefore(offsets, at); at < rowEnd; span++) {
        const length = Math.min(rowEnd, offsets[span + 1]!) - at;
        if (length > 0) pieces.push({ span, start: spans.starts[span]! + at - offsets[span]!, length });
        at += length;
      }
      return pieces;
    },
  };
}

/**
 * Packs whole spans into rows, the longest first, each where it leaves the least room (best-fit
 * decreasing; Ding et al., "Fewer Truncations Improve Language Modeling", 2024). Only spans longer
 * than a row are cut. Rows need not be full, and no token is left out.
 */
export function packBestFit(spans: TokenSpans, sequenceLength: number): Packing {
  const pieces = cutLongSpans(spans, sequenceLength);
  pieces.sort((a, b) => b.length - a.length);
  const rows: Piece[][] = [];
  const open = new OpenRows(sequenceLength);
  for (const piece of pieces) {
    const found = open.takeTightest(piece.length);
    const row = found?.row ?? rows.length;
    const room = (found?.room ?? sequenceLength) - piece.length;
    if (found === undefined) rows.push([]);
    rows[row]!.push(piece);
    if (room > 0) open.add(row, room);
  }
  return { rowCount: rows.length, packedTokens: spannedTokens(spans), pieces: (row) => rows[row]! };
}

function cutLongSpans(spans: TokenSpans, sequenceLength: number): Piece[] {
  const pieces: Piece[] = [];
  for (let span = 0; span < spans.starts.length; span++) {
    const end = spans.ends[span]!;
    for (let start = spans.starts[span]!; start < end; start += sequenceLength) {
      pieces.push({ span, start, length: Math.min(sequenceLength, end - start) });
    }
  }
  return pieces;
}

/** Rows by the room that they have left, and a bitmap of the amounts of room that some row has. */
class OpenRows {
  readonly #rowsByRoom: number[][];
  readonly #rooms: Uint32Array;

  constructor(sequenceLength: number) {
    this.#rowsByRoom = Array.from({ length: sequenceLength + 1 }, () => []);
    this.#rooms = new Uint32Array((sequenceLength >> 5) + 1);
  }

  add(row: number, room: number): void {
    this.#rowsByRoom[room]!.push(row);
    this.#rooms[room >> 5]! |= 1 << (room & 31);
  }

  /** Takes out a row with the least room that is enough. */
  takeTightest(needed: number): { row: number; room: number } | undefined {
    let word = needed >> 5;
    let bits = this.#rooms[word]! & (-1 << (needed & 31));
    while (bits === 0) {
      word++;
      if (word >= this.#rooms.length) return undefined;
      bits = this.#rooms[word]!;
    }
    const room = word * 32 + 31 - Math.clz32(bits & -bits);
    const rows = this.#rowsByRoom[room]!;
    const row = rows.pop()!;
    if (rows.length === 0) this.#rooms[word]! &= ~(1 << (room & 31));
    return { row, room };
  }
}

/** The last index whose value is at most `value`; `sorted[0]` is. */
function lastAtOrBefore(sorted: Float64Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! <= value) low = middle;
    else high = middle;
  }
  return low;
}
