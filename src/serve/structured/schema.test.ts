import { expect, it } from "vitest";
import { allowsText, randomText, testTokens } from "../../../test/support/structured_walk.ts";
import { GrammarCompiler } from "./compiler.ts";

const tokens = testTokens();
const compiler = new GrammarCompiler(tokens);
it("smoke", () => {
  const g = compiler.jsonSchema({
    type: "object",
    properties: { name: { type: "string" }, age: { type: "integer", minimum: 3, maximum: 127 } },
    required: ["name", "age"],
  });
  expect(allowsText(g, tokens, '{"name": "x\\n\\ud83d\\ude00é","age":12}')).toBe(true);
  expect(allowsText(g, tokens, '{"name": "x","age":2}')).toBe(false);
  expect(allowsText(g, tokens, '{"name": "x","age":129}')).toBe(false);
  expect(allowsText(g, tokens, '{"name":  "x","age":12}')).toBe(false);
  for (let i = 0; i < 5; i++) console.log(randomText(g, tokens, i).toString());
  const h = compiler.jsonObject();
  for (let i = 0; i < 5; i++) console.log(randomText(h, tokens, i).toString());
});
