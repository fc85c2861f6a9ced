import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { StopMatcher } from "./stop_strings.ts";

/** The text up to the stop text that is complete first, by trying every beginning of the text. */
function cut(text: string, stops: readonly string[], include: boolean): { text: string; stop?: string } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (found.length === 0) continue;
    const stop = found.reduce((longest, each) => (each.length > longest.length ? each : longest));
    return { text: text.slice(0, include ? end : end - stop.length), stop };
  }
  return { text };
}

describe("StopMatcher", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 40 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 5 }), {
    minLength: 1,
    maxLength: 4,
  });

  test("lets through what is before the first stop text, wherever pieces end", () => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 8 }), stops, fc.boolean(), (pieces, wanted, include) => {
        const expected = cut(pieces.join(""), wanted, include);
        const matcher = new StopMatcher(wanted, include);
        let text = "";
        let stop: string | undefined;
        for (const piece of pieces) {
          const matched = matcher.push(piece);
          text += matched.text;
          // What was let through can no longer turn out to be the beginning of a stop text.
          expect(expected.text.startsWith(text)).toBe(true);
          stop = matched.stop;
          if (stop !== undefined) break;
        }
        if (stop === undefined) text += matcher.flush();
        expect({ text, stop }).toEqual({ text: expected.text, stop: expected.stop });
      }),
    );
  });

  test("holds back no more than it must", () => {
    const matcher = new StopMatcher(["</end>"], false);
    expect(matcher.push("a < b </e")).toEqual({ text: "a < b " });
    expect(matcher.push("m></")).toEqual({ text: "</em>" });
    expect(matcher.push("end> rest")).toEqual({ text: "", stop: "</end>" });
  });
});
