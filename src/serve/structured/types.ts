/**
 * Which tokens may come next, for one sequence. The engine asks before it samples and tells what was sampled.
 */
export interface TokenConstraint {
  /**
   * Sets bit `id % 32` of word `id / 32` of `mask` for every token that may come next and clears the others.
   * @param mask `[ceil(vocabulary / 32)]`. Where the text is complete, the end-of-text tokens are allowed;
   * where it must end, only they are.
   */
  fillMask(mask: Int32Array): void;
  /** Takes a token that the mask allowed. @throws InternalError for one that it did not. */
  accept(token: number): void;
}

/** A compiled grammar: immutable, shared by all sequences that use it. */
export interface Grammar {
  /** A constraint at the beginning of the text. */
  start(): TokenConstraint;
}
