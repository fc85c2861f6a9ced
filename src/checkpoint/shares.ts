import type { StatePiece, TensorPiece } from "../base/pieces.ts";

/** A piece of a parameter or of a state, without its data. */
export interface PieceDescription extends TensorPiece {
  readonly kind: string;
}

/** What one rank writes of one of its own pieces: elements [start, end) of the piece's box. */
export interface Share {
  /** The piece among the rank's own. */
  readonly piece: number;
  readonly start: number;
  readonly end: number;
}

/** A piece as text describes it to other ranks. */
export function describePiece({ kind, name, shape, box, start, end }: StatePiece): PieceDescription {
  return { kind, name, shape, box, start, end };
}

/**
 * Divides the pieces of all ranks so that every element is written once and each rank writes about as much: ranks
 * that hold the same piece (parameters that are not partitioned) each write a part of it.
 * @param ranks the pieces of every rank, in the order of ranks
 */
export function shareOut(ranks: readonly (readonly PieceDescription[])[], rank: number): Share[] {
  const holders = new Map<string, number[]>();
  ranks.forEach((pieces, holder) => {
    for (const piece of pieces) {
      const key = keyOf(piece);
      const present = holders.get(key);
      if (present === undefined) holders.set(key, [holder]);
      else present.push(holder);
    }
  });
  return ranks[rank]!.flatMap((piece, index) => {
    const sharing = holders.get(keyOf(piece))!;
    const place = sharing.indexOf(rank);
    const length = piece.end - piece.start;
    const cut = (part: number): number => piece.start + Math.floor((length * part) / sharing.length);
    const share = { piece: index, start: cut(place), end: cut(place + 1) };
    return share.end > share.start ? [share] : [];
  });
}

function keyOf({ kind, name, box, start, end }: PieceDescription): string {
  return JSON.stringify([kind, name, box.starts, box.sizes, start, end]);
}
