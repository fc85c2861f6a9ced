import { InternalError } from "../../base/errors.ts";

/** A cost over a few variables: `table` row-major over their choices, Infinity where a combination is illegal. */
export interface Factor {
  readonly variables: readonly number[];
  readonly table: Float64Array;
}

/** Choices of variables such that the sum of all factors is least. */
export interface Minimum {
  readonly choices: number[];
  readonly cost: number;
}

/** Tables do not grow beyond this: a variable is settled by itself instead. */
const largestTable = 1 << 20;

/**
 * Minimizes a sum of factors exactly by eliminating one variable after another, the one that ties together the
 * fewest choices first (Bertele and Brioschi, "Nonserial Dynamic Programming", 1972): what is linear in the number
 * of layers for a model of repeated blocks. Where a table would grow too large, the variable that stands in most
 * factors is settled at what looks best by itself, and the result is only nearly the best.
 * @param domains the number of choices of each variable.
 */
export function minimize(domains: readonly number[], factors: readonly Factor[]): Minimum {
  const problem = new Elimination(domains, factors);
  return problem.solve();
}

/** How a variable's choice follows from those of its neighbours. */
interface Decision {
  readonly variable: number;
  readonly neighbours: readonly number[];
  readonly best: Uint8Array;
}

class Elimination {
  readonly #domains: readonly number[];
  readonly #touching: Set<Factor>[];
  readonly #remaining: Set<number>;
  readonly #decisions: Decision[] = [];
  #constant = 0;

  constructor(domains: readonly number[], factors: readonly Factor[]) {
    this.#domains = domains;
    this.#touching = domains.map(() => new Set());
    this.#remaining = new Set(domains.keys());
    for (const factor of factors) this.#add(factor);
  }

  solve(): Minimum {
    const sizes = new Map([...this.#remaining].map((variable) => [variable, this.#tableSize(variable)]));
    while (this.#remaining.size > 0) {
      let [next, smallest] = [-1, Number.POSITIVE_INFINITY];
      for (const [variable, size] of sizes) {
        if (size < smallest) [next, smallest] = [variable, size];
        if (smallest <= 1) break;
      }
      const neighbours = this.#neighbours(next);
      if (smallest > largestTable) next = this.#settle();
      else this.#eliminate(next, neighbours);
      sizes.delete(next);
      for (const neighbour of this.#remaining) {
        if (smallest > largestTable || neighbours.includes(neighbour)) {
          sizes.set(neighbour, this.#tableSize(neighbour));
        }
      }
    }
    const choices = new Array<number>(this.#domains.length).fill(0);
    for (const { variable, neighbours, best } of this.#decisions.toReversed()) {
      let index = 0;
      for (const neighbour of neighbours) index = index * this.#domains[neighbour]! + choices[neighbour]!;
      choices[variable] = best[index]!;
    }
    return { choices, cost: this.#constant };
  }

  #add(factor: Factor): void {
    if (factor.variables.length === 0) this.#constant += factor.table[0]!;
    for (const variable of factor.variables) this.#touching[variable]!.add(factor);
  }

  #neighbours(variable: number): number[] {
    const found = new Set<number>();
    for (const factor of this.#touching[variable]!) for (const other of factor.variables) found.add(other);
    found.delete(variable);
    return [...found].sort((a, b) => a - b);
  }

  #tableSize(variable: number): number {
    return this.#neighbours(variable).reduce((size, other) => size * this.#domains[other]!, 1);
  }

  #eliminate(variable: number, neighbours: readonly number[]): void {
    const factors = [...this.#touching[variable]!];
    const scope = [...neighbours, variable];
    const strides = factors.map((factor) => scope.map((other) => strideOf(factor, other, this.#domains)));
    const size = neighbours.reduce((product, other) => product * this.#domains[other]!, 1);
    const table = new Float64Array(size);
    const best = new Uint8Array(size);
    const choices = new Array<number>(neighbours.length).fill(0);
    const offsets = factors.map(() => 0);
    const domain = this.#domains[variable]!;
    for (let index = 0; index < size; index++) {
      let [least, at] = [Number.POSITIVE_INFINITY, 0];
      for (let choice = 0; choice < domain; choice++) {
        let cost = 0;
        for (let f = 0; f < factors.length; f++) {
          cost += factors[f]!.table[offsets[f]! + choice * strides[f]![neighbours.length]!]!;
        }
        if (cost < least) [least, at] = [cost, choice];
      }
      table[index] = least;
      best[index] = at;
      // The next combination of the neighbours' choices, the last one fastest.
      for (let place = neighbours.length - 1; place >= 0; place--) {
        const wrapped = ++choices[place]! === this.#domains[neighbours[place]!]!;
        const change = wrapped ? 1 - choices[place]! : 1;
        if (wrapped) choices[place] = 0;
        for (let f = 0; f < factors.length; f++) offsets[f]! += change * strides[f]![place]!;
        if (!wrapped) break;
      }
    }
    this.#remove(variable, factors);
    this.#decisions.push({ variable, neighbours, best });
    this.#add({ variables: neighbours, table });
  }

  #remove(variable: number, factors: readonly Factor[]): void {
    for (const factor of factors) for (const other of factor.variables) this.#touching[other]!.delete(factor);
    this.#remaining.delete(variable);
  }

  /** Settles the variable of the most factors at the choice of the least sum of their minima. */
  #settle(): number {
    let chosen = -1;
    for (const variable of this.#remaining) {
      if (chosen < 0 || this.#touching[variable]!.size > this.#touching[chosen]!.size) chosen = variable;
    }
    const factors = [...this.#touching[chosen]!];
    const costs = Array.from({ length: this.#domains[chosen]! }, (_, choice) =>
      factors.reduce(
        (sum, factor) => sum + Math.min(...restrict(factor, chosen, choice, this.#domains).table),
        0,
      ),
    );
    const best = costs.indexOf(Math.min(...costs));
    this.#remove(chosen, factors);
    this.#decisions.push({ variable: chosen, neighbours: [], best: Uint8Array.of(best) });
    for (const factor of factors) this.#add(restrict(factor, chosen, best, this.#domains));
    return chosen;
  }
}

/** How far apart a variable's choices lie in a factor's table; 0 where it is none of the factor's. */
function strideOf(factor: Factor, variable: number, domains: readonly number[]): number {
  const place = factor.variables.indexOf(variable);
  if (place < 0) return 0;
  return factor.variables.slice(place + 1).reduce((product, other) => product * domains[other]!, 1);
}

/** The factor with a variable at one choice. */
function restrict(factor: Factor, variable: number, choice: number, domains: readonly number[]): Factor {
  const place = factor.variables.indexOf(variable);
  if (place < 0) throw new InternalError("a factor is restricted in a variable that it does not have");
  const stride = strideOf(factor, variable, domains);
  const domain = domains[variable]!;
  const table = factor.table.filter((_, index) => Math.floor(index / stride) % domain === choice);
  return { variables: factor.variables.filter((other) => other !== variable), table };
}
