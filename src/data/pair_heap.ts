/**
 * A binary heap of pairs by count: the highest count first, among equals the smaller pair number.
 * Entries are never changed; who uses it pushes a pair again when its count changes.
 */
export class PairHeap {
  readonly #pairs: number[] = [];
  readonly #counts: number[] = [];

  push(pair: number, count: number): void {
    let index = this.#pairs.length;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!comesBefore(pair, count, this.#pairs[parent]!, this.#counts[parent]!)) break;
      this.#pairs[index] = this.#pairs[parent]!;
      this.#counts[index] = this.#counts[parent]!;
      index = parent;
    }
    this.#pairs[index] = pair;
    this.#counts[index] = count;
  }

  /** Takes the first entry off, or gives undefined where there is none. */
  pop(): { readonly pair: number; readonly count: number } | undefined {
    if (this.#pairs.length === 0) return undefined;
    const top = { pair: this.#pairs[0]!, count: this.#counts[0]! };
    const pair = this.#pairs.pop()!;
    const count = this.#counts.pop()!;
    const size = this.#pairs.length;
    if (size === 0) return top;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#isBefore(child + 1, child)) child++;
      if (!comesBefore(this.#pairs[child]!, this.#counts[child]!, pair, count)) break;
      this.#pairs[index] = this.#pairs[child]!;
      this.#counts[index] = this.#counts[child]!;
      index = child;
    }
    this.#pairs[index] = pair;
    this.#counts[index] = count;
    return top;
  }

  #isBefore(a: number, b: number): boolean {
    return comesBefore(this.#pairs[a]!, this.#counts[a]!, this.#pairs[b]!, this.#counts[b]!);
  }
}

function comesBefore(pairA: number, countA: number, pairB: number, countB: number): boolean {
  return countA > countB || (countA === countB && pairA < pairB);
}
