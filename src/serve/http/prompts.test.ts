import { expect, test } from "vitest";
import { FakeEngine } from "../../../test/support/fake_engine.ts";
import { tokenizeText } from "./prompts.ts";

/** An engine of one token for each run of eight equal letters, which counts the characters that it looked at. */
class Counting extends FakeEngine {
  seen = 0;

  override tokenize(text: string): number[] {
    this.seen += text.length;
    return new Array(Math.ceil(text.length / 8)).fill(7);
  }
}

test("a text of a million characters is refused after a part of it", () => {
  const engine = new Counting({ maximumContext: 1000 });
  expect(() => tokenizeText("a".repeat(1e6), engine, true, "prompt")).toThrow(
    "this model's maximum context length is 1000 tokens; 1000000 characters are more",
  );
  // 8,000 characters are 1,000 tokens; parts are of 4,000.
  expect(engine.seen).toBeLessThanOrEqual(12_000);
});

test("a long text that fits is taken as it is", () => {
  const engine = new Counting({ maximumContext: 1000 });
  expect(tokenizeText("a".repeat(7900), engine, true, "prompt")).toHaveLength(988);
  expect(engine.seen).toBe(2 * 7900);
  expect(tokenizeText("a".repeat(4000), engine, true, "prompt")).toHaveLength(500);
  expect(engine.seen).toBe(2 * 7900 + 4000);
});
