import { expect, test } from "vitest";
import { PhiloxStream } from "../../base/random.ts";
import { type Factor, minimize } from "./minimize.ts";

/** The cost of choices: every factor's entry, added up. */
function costOf(factors: readonly Factor[], domains: readonly number[], choices: readonly number[]): number {
  return factors.reduce((sum, { variables, table }) => {
    const index = variables.reduce((place, variable) => place * domains[variable]! + choices[variable]!, 0);
    return sum + table[index]!;
  }, 0);
}

/** The least cost by trying everything. */
function bruteForce(factors: readonly Factor[], domains: readonly number[]): number {
  const total = domains.reduce((product, domain) => product * domain, 1);
  let least = Number.POSITIVE_INFINITY;
  for (let index = 0; index < total; index++) {
    let rest = index;
    const choices = domains.map((domain) => {
      const choice = rest % domain;
      rest = Math.floor(rest / domain);
      return choice;
    });
    least = Math.min(least, costOf(factors, domains, choices));
  }
  return least;
}

test.each(Array.from({ length: 20 }, (_, seed) => seed))("random problem %i: nothing is cheaper", (seed) => {
  const stream = new PhiloxStream(seed, 2);
  const domains = Array.from({ length: 8 }, () => 1 + stream.nextBelow(3));
  const factors = Array.from({ length: 14 }, (): Factor => {
    const variables = [...new Set([0, 1, 2].map(() => stream.nextBelow(domains.length)))];
    const size = variables.reduce((product, variable) => product * domains[variable]!, 1);
    const entry = (): number =>
      stream.nextBelow(8) === 0 ? Number.POSITIVE_INFINITY : stream.nextBelow(100);
    return { variables, table: Float64Array.from({ length: size }, entry) };
  });
  const { choices, cost } = minimize(domains, factors);
  const least = bruteForce(factors, domains);
  expect(cost).toBe(least);
  if (Number.isFinite(least)) expect(costOf(factors, domains, choices)).toBe(least);
});

test("a long chain of repeated blocks takes no longer a block", () => {
  // Staying costs nothing, changing 3, and each place has a favourite worth 1: changing never pays.
  const length = 2000;
  const domains = Array.from({ length }, () => 3);
  const factors = domains.flatMap((_, variable): Factor[] => [
    {
      variables: [variable],
      table: Float64Array.from([0, 1, 2], (choice) => (choice === variable % 2 ? 0 : 1)),
    },
    ...(variable === 0
      ? []
      : [
          {
            variables: [variable - 1, variable],
            table: Float64Array.from({ length: 9 }, (_, index) => (index % 4 === 0 ? 0 : 3)),
          },
        ]),
  ]);
  const { choices, cost } = minimize(domains, factors);
  expect(new Set(choices).size).toBe(1);
  expect(cost).toBe(length / 2);
});
