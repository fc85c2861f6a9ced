import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { expect, it } from "vitest";
import {
  allowedTokens,
  allowsText,
  randomNumbers,
  randomText,
  testTokens,
} from "../../../test/support/structured_walk.ts";
import { Automaton, type Configuration } from "./automaton.ts";
import { compileJsonSchema, GrammarCompiler } from "./compiler.ts";

/** A schema and a value that matches it, made together: the value knows nothing of grammars. */
interface Sample {
  readonly schema: Record<string, unknown>;
  readonly value: unknown;
}

const text = fc.string({ unit: "binary", maxLength: 12 });
const name = fc.oneof(
  fc.constantFrom("a", "b", "na", "name", "nam", "tag", "é", "日本", 'q"t', "back\\", "x y", "__proto"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 6 }),
);

function stringSample(): fc.Arbitrary<Sample> {
  return fc
    .record({ value: text, below: fc.nat(3), above: fc.nat(3), bounded: fc.boolean() })
    .map((choices) => {
      const length = Array.from(choices.value).length;
      const bounds = { minLength: Math.max(0, length - choices.below), maxLength: length + choices.above };
      return { schema: { type: "string", ...(choices.bounded ? bounds : {}) }, value: choices.value };
    });
}

function integerSample(): fc.Arbitrary<Sample> {
  return fc
    .record({
      value: fc.oneof(fc.integer({ min: -200, max: 200 }), fc.maxSafeInteger()),
      below: fc.option(fc.nat(1500)),
      above: fc.option(fc.nat(1500)),
      exclusive: fc.boolean(),
    })
    .map(({ value, below, above, exclusive }) => ({
      schema: {
        type: "integer",
        ...(below === null
          ? {}
          : exclusive
            ? { exclusiveMinimum: value - below - 1 }
            : { minimum: value - below }),
        ...(above === null
          ? {}
          : exclusive
            ? { exclusiveMaximum: value + above + 1 }
            : { maximum: value + above }),
      },
      value,
    }));
}

function numberSample(): fc.Arbitrary<Sample> {
  const bounded = fc
    .record({
      value: fc.integer({ min: -50_000, max: 50_000 }),
      below: fc.option(fc.nat(3000)),
      above: fc.option(fc.nat(3000)),
      exclusive: fc.boolean(),
      places: fc.nat(3),
    })
    .filter(({ below, above }) => below !== null || above !== null)
    .map(({ value, below, above, exclusive, places }) => {
      const at = (units: number) => Number(`${units}e-${places}`);
      return {
        schema: {
          type: "number",
          ...(below === null
            ? {}
            : exclusive
              ? { exclusiveMinimum: at(value - below - 1) }
              : { minimum: at(value - below) }),
          ...(above === null
            ? {}
            : exclusive
              ? { exclusiveMaximum: at(value + above + 1) }
              : { maximum: at(value + above) }),
        },
        value: at(value),
      };
    });
  const free = fc
    .double({ noNaN: true, noDefaultInfinity: true, min: -9e307, max: 9e307 })
    .map((value) => ({ schema: { type: "number" }, value }));
  return fc.oneof(bounded, free);
}

const scalar: fc.Arbitrary<Sample> = fc.oneof(
  stringSample(),
  integerSample(),
  numberSample(),
  fc.boolean().map((value) => ({ schema: { type: "boolean" }, value })),
  fc.constant({ schema: { type: "null" }, value: null }),
  fc
    .record({
      values: fc.uniqueArray(fc.oneof(text, fc.integer(), fc.constant(null)), { minLength: 1 }),
      at: fc.nat(),
    })
    .map(({ values, at }) => ({ schema: { enum: values }, value: values[at % values.length] })),
  fc
    .jsonValue({ maxDepth: 2 })
    .map((value) => JSON.parse(JSON.stringify(value)) as unknown)
    .map((value) => ({ schema: { const: value }, value })),
);

const { sample } = fc.letrec<{ sample: Sample }>((tie) => ({
  sample: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    scalar,
    // Arrays of one schema: the same item repeated.
    fc
      .record({ item: tie("sample"), length: fc.nat(3), below: fc.nat(2), above: fc.option(fc.nat(2)) })
      .map(({ item, length, below, above }) => ({
        schema: {
          type: "array",
          items: item.schema,
          minItems: Math.max(0, length - below),
          ...(above === null ? {} : { maxItems: length + above }),
        },
        value: Array.from({ length }, () => item.value),
      })),
    fc
      .record({ items: fc.array(tie("sample"), { minLength: 1, maxLength: 3 }), dropped: fc.nat(1) })
      .map(({ items, dropped }) => ({
        schema: { type: "array", prefixItems: items.map((item) => item.schema), items: false },
        value:
          items.slice(dropped).length === 0
            ? []
            : items.slice(0, items.length - dropped).map((item) => item.value),
      })),
    fc
      .record({
        members: fc.uniqueArray(
          fc.tuple(name, tie("sample"), fc.constantFrom("required", "optional", "left out")),
          {
            selector: ([key]) => key,
            maxLength: 4,
          },
        ),
        additional: fc.option(fc.tuple(name, tie("sample"))),
      })
      .map(({ members, additional }) => {
        const value = new Map<string, unknown>();
        for (const [key, member, presence] of members)
          if (presence !== "left out") value.set(key, member.value);
        const other = additional !== null && members.every(([key]) => key !== additional[0]);
        if (other) value.set(additional[0], additional[1].value);
        return {
          schema: {
            type: "object",
            properties: Object.fromEntries(members.map(([key, member]) => [key, member.schema])),
            required: members.filter(([, , presence]) => presence === "required").map(([key]) => key),
            additionalProperties: other ? additional[1].schema : false,
          },
          value: Object.fromEntries(value),
        };
      }),
    fc
      .record({ options: fc.array(tie("sample"), { minLength: 1, maxLength: 3 }), at: fc.nat() })
      .map(({ options, at }) => ({
        schema: { anyOf: options.map((option) => option.schema) },
        value: options[at % options.length]!.value,
      })),
  ) as fc.Arbitrary<Sample>,
}));

const tokens = testTokens();
const compiler = new GrammarCompiler(tokens);
const ajv = new Ajv2020({ strict: false });

it("writes only texts that JSON.parse takes and that ajv finds valid", () => {
  fc.assert(
    fc.property(sample, fc.nat(), ({ schema }, seed) => {
      const validate = ajv.compile(schema);
      const grammar = compiler.jsonSchema(schema);
      for (let i = 0; i < 3; i++) {
        const bytes = randomText(grammar, tokens, seed + i, 40);
        const written = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
        expect(validate(JSON.parse(written)), written).toBe(true);
      }
    }),
    { numRuns: 300 },
  );
});

it("lets every valid value be written that JSON.stringify gives, whatever the tokens are cut like", () => {
  fc.assert(
    fc.property(sample, fc.nat(), ({ schema, value }, seed) => {
      expect(ajv.validate(schema, value)).toBe(true);
      const grammar = compiler.jsonSchema(schema);
      expect(allowsText(grammar, tokens, JSON.stringify(value), seed)).toBe(true);
    }),
    { numRuns: 400 },
  );
});

it("masks exactly the tokens whose bytes the automaton takes", () => {
  fc.assert(
    fc.property(sample, fc.nat(), ({ schema }, seed) => {
      const grammar = compiler.jsonSchema(schema);
      const automaton = new Automaton(compileJsonSchema(schema));
      const mask = new Int32Array(Math.ceil(tokens.vocabularySize / 32));
      const random = randomNumbers(seed);
      const constraint = grammar.start();
      let place: Configuration = automaton.start;
      for (let step = 0; step < 12; step++) {
        constraint.fillMask(mask);
        const expected: number[] = [];
        for (let id = 0; id < tokens.vocabularySize; id++) {
          const token = tokens.tokenText(id);
          if (token.special ? place.complete : !after(automaton, place, token.bytes).dead) expected.push(id);
        }
        const allowed = allowedTokens(mask, tokens.vocabularySize);
        expect(allowed).toEqual(expected);
        const texts = allowed.filter((id) => !tokens.tokenText(id).special);
        if (texts.length === 0) return;
        const token = texts[Math.floor(random() * texts.length)]!;
        constraint.accept(token);
        place = after(automaton, place, tokens.tokenText(token).bytes);
      }
    }),
    { numRuns: 150 },
  );
});

function after(automaton: Automaton, from: Configuration, bytes: readonly number[]): Configuration {
  return bytes.reduce((place, byte) => automaton.step(place, byte), from);
}

it("masks by the number of characters that are left and needed, near the bounds and far from them", () => {
  const long = testTokens([
    "x".repeat(20),
    "y".repeat(33),
    `${"x".repeat(9)}"`,
    `é${"x".repeat(5)}"`,
    `${"日".repeat(7)}`,
    `${"\\n".repeat(6)}"`,
    '\\ud83d\\ude00x"',
    `${" ".repeat(25)}\\`,
    Buffer.concat([Buffer.from("x".repeat(11)), Buffer.from("é").subarray(0, 1)]),
  ]);
  const own = new GrammarCompiler(long);
  const mask = new Int32Array(Math.ceil(long.vocabularySize / 32));
  const prefixes = ["", "\\", "\\ud83d", Buffer.from("日").subarray(0, 2)];
  fc.assert(
    fc.property(
      fc.nat(90),
      fc.nat(90),
      fc.nat(180),
      fc.constantFrom(...prefixes),
      (minLength, more, at, prefix) => {
        const schema = { type: "string", minLength, maxLength: minLength + more };
        const written = Buffer.concat([
          Buffer.from(`"${"x".repeat(at % (minLength + more + 1))}`),
          at < minLength + more ? Buffer.from(prefix as string) : Buffer.of(),
        ]);
        const constraint = own.jsonSchema(schema).start();
        const automaton = new Automaton(compileJsonSchema(schema));
        const place = after(automaton, automaton.start, [...written]);
        for (const byte of written) constraint.accept(byte);
        constraint.fillMask(mask);
        const expected: number[] = [];
        for (let id = 0; id < long.vocabularySize; id++) {
          const token = long.tokenText(id);
          if (!token.special && !after(automaton, place, token.bytes).dead) expected.push(id);
        }
        expect(allowedTokens(mask, long.vocabularySize)).toEqual(expected);
      },
    ),
    { numRuns: 400 },
  );
});

it("gives the same text for the same choices, compiled anew", () => {
  const schema = { type: "object", additionalProperties: { type: ["string", "number", "array"] } };
  const texts = [1, 2].map(() =>
    randomText(new GrammarCompiler(tokens).jsonSchema(schema), tokens, 7, 80).toString("hex"),
  );
  expect(texts[0]).toBe(texts[1]);
});
