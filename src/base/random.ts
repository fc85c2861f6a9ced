/**
 * Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
 * 3", SC 2011). A number depends only on (seed, stream, position), so TypeScript and native code draw the
 * same ones in any order and on any thread. `native/core/random.h` is the twin.
 */

const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;

function highProduct(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle % 0x10000);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** Four random 32-bit words for a 128-bit counter under a 64-bit key, written into `output`. */
export function philox(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  output: Uint32Array,
): void {
  for (let round = 0; round < 10; round++) {
    const high0 = highProduct(multiplier0, c0 >>> 0);
    const low0 = Math.imul(multiplier0, c0) >>> 0;
    const high1 = highProduct(multiplier1, c2 >>> 0);
    const low1 = Math.imul(multiplier1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + weyl0) >>> 0;
    k1 = (k1 + weyl1) >>> 0;
  }
  output[0] = c0;
  output[1] = c1;
  output[2] = c2;
  output[3] = c3;
}

/** A float in [0, 1) with 24 random bits, exact in float32. */
export function uniformFromBits(bits: number): number {
  return (bits >>> 8) * 2 ** -24;
}

/** A float64 in [0, 1) with 53 random bits, from two words. */
export function doubleFromBits(first: number, second: number): number {
  return ((first >>> 5) * 2 ** 26 + (second >>> 6)) * 2 ** -53;
}

/**
 * A standard normal from two words (Box-Muller). Native code computes the same formula in float64 and rounds
 * to float32, so the two agree to the last bits of `Math.log` and `Math.cos`.
 */
export function normalFromBits(first: number, second: number): number {
  const radius = Math.sqrt(-2 * Math.log(((first >>> 8) + 1) * 2 ** -24));
  return radius * Math.cos(2 * Math.PI * (second >>> 8) * 2 ** -24);
}

/**
 * A seeded sequence of random numbers. Word i of the stream is word `i % 4` of the Philox block with counter
 * (i / 4 low, i / 4 high, stream, 0) and key (seed low, seed high).
 */
export class PhiloxStream {
  readonly #seedLow: number;
  readonly #seedHigh: number;
  readonly #stream: number;
  readonly #block = new Uint32Array(4);
  #position = 0;
  #loadedBlock = -1;

  constructor(seed: number, stream = 0) {
    this.#seedLow = seed >>> 0;
    this.#seedHigh = Math.floor(seed / 2 ** 32) >>> 0;
    this.#stream = stream >>> 0;
  }

  /** How many words have been drawn; set it to resume. */
  get position(): number {
    return this.#position;
  }
  set position(value: number) {
    this.#position = value;
  }

  /** The next 32 random bits. */
  nextUint32(): number {
    const block = Math.floor(this.#position / 4);
    if (block !== this.#loadedBlock) {
      const high = Math.floor(block / 2 ** 32);
      philox(block >>> 0, high >>> 0, this.#stream, 0, this.#seedLow, this.#seedHigh, this.#block);
      this.#loadedBlock = block;
    }
    return this.#block[this.#position++ % 4]!;
  }

  /** The next float in [0, 1). */
  nextFloat(): number {
    return uniformFromBits(this.nextUint32());
  }

  /** The next integer in [0, bound), without bias (Lemire's rejection). */
  nextBelow(bound: number): number {
    const threshold = (2 ** 32 - bound) % bound;
    for (;;) {
      const bits = this.nextUint32();
      const low = Math.imul(bits, bound) >>> 0;
      if (low >= threshold) return highProduct(bits, bound);
    }
  }

  /** The next standard normal number (uses two words). */
  nextNormal(): number {
    const first = this.nextUint32();
    return normalFromBits(first, this.nextUint32());
  }
}
