import { expect, test } from "vitest";
import { PhiloxStream, philox } from "./random.ts";

// Known answers of Philox 4x32-10 published with Random123 (kat_vectors).
test.each([
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
])("philox of %j under %j", (counter, key, expected) => {
  const output = new Uint32Array(4);
  philox(counter[0]!, counter[1]!, counter[2]!, counter[3]!, key[0]!, key[1]!, output);
  expect([...output]).toEqual(expected);
});

test("a stream resumes at any position, and bounded draws are even", () => {
  const stream = new PhiloxStream(42, 7);
  const words = Array.from({ length: 11 }, () => stream.nextUint32());
  const resumed = new PhiloxStream(42, 7);
  resumed.position = 6;
  expect(Array.from({ length: 5 }, () => resumed.nextUint32())).toEqual(words.slice(6));
  const counts = new Array(10).fill(0);
  for (let i = 0; i < 20000; i++) counts[stream.nextBelow(10)]++;
  for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(250);
});

test("normal draws have mean 0 and variance 1", () => {
  const stream = new PhiloxStream(1);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < 40000; i++) {
    const value = stream.nextNormal();
    sum += value;
    squares += value * value;
  }
  expect(Math.abs(sum / 40000)).toBeLessThan(0.02);
  expect(Math.abs(squares / 40000 - 1)).toBeLessThan(0.03);
});
