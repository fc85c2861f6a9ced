import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allowedTokens, allowsText, randomText, testTokens } from "../../../test/support/structured_walk.ts";
import { InternalError } from "../../base/errors.ts";
import { RequestError } from "../engine/errors.ts";
import { GrammarCompiler } from "./compiler.ts";
import type { Grammar } from "./types.ts";

const tokens = testTokens();
const compiler = new GrammarCompiler(tokens);
const ajv = new Ajv2020({ strict: false });
const end = tokens.endTokens[0]!;

function allows(schema: unknown, text: string): boolean {
  return allowsText(compiler.jsonSchema(schema), tokens, text);
}

function masked(grammar: Grammar, written: string): number[] {
  const constraint = grammar.start();
  for (const byte of Buffer.from(written)) constraint.accept(byte);
  const mask = new Int32Array(Math.ceil(tokens.vocabularySize / 32));
  constraint.fillMask(mask);
  return allowedTokens(mask, tokens.vocabularySize);
}

const tree = {
  $defs: {
    node: {
      type: "object",
      properties: { name: { type: "string" }, children: { type: "array", items: { $ref: "#/$defs/node" } } },
      required: ["name"],
      additionalProperties: false,
    },
  },
  $ref: "#/$defs/node",
};
const list = {
  type: "object",
  properties: { value: { type: "integer" }, next: { anyOf: [{ type: "null" }, { $ref: "#" }] } },
  required: ["value", "next"],
};

/** Schema, texts that are right, texts that are not. */
const cases: readonly [string, unknown, readonly string[], readonly string[]][] = [
  [
    "white space",
    { type: "array" },
    ["[1, 2,3]", '[{"a": 1,"b":2}]'],
    ["[ 1]", "[1,  2]", "[1\n]", " []", "[] "],
  ],
  [
    "any value",
    true,
    ["null", "-0.5e-3", '"\\u00e9\\ud83d\\ude00"', "[[]]", '{"":{}}'],
    ["01", "nul", '"\\ud83d"', '"\t"', "+1", "1."],
  ],
  ["type lists", { type: ["string", "null"] }, ['"a"', "null"], ["1", "true"]],
  ["nullable", { type: "integer", nullable: true }, ["1", "null"], ['"a"']],
  ["integers", { type: "integer" }, ["0", "-7", "120"], ["1.5", "-0", "01", "1e3", "-"]],
  [
    "bounded integers",
    { type: "integer", minimum: -12, exclusiveMaximum: 305 },
    ["-12", "-9", "0", "304", "99"],
    ["-13", "305", "1000", "-20"],
  ],
  [
    "large bounds",
    { type: "integer", minimum: 9007199254740991 },
    ["9007199254740991", "9223372036854775807"],
    ["9007199254740990", "5"],
  ],
  [
    "multiples",
    { type: "integer", multipleOf: 7, minimum: 0, maximum: 100 },
    ["0", "7", "98"],
    ["1", "99", "105", "8"],
  ],
  [
    "bounded numbers",
    { type: "number", minimum: 0, maximum: 1 },
    ["0", "1", "0.25", "1.0", "0.0"],
    ["1.01", "-0.1", "2", "1e0"],
  ],
  [
    "exclusive numbers",
    { type: "number", exclusiveMinimum: -0.5, exclusiveMaximum: 2.25 },
    ["-0.49", "0", "2.2499", "2", "-0.4"],
    ["-0.5", "2.25", "2.250", "-0.50", "2.3", "-1"],
  ],
  [
    "negative numbers",
    { type: "number", maximum: -1.5 },
    ["-1.5", "-2", "-1.50", "-100.25"],
    ["-1.4", "1.5", "0", "-1"],
  ],
  [
    "enum",
    { enum: ["a", 'q"', 1, null, { a: [1, 2] }] },
    ['"a"', '"q\\""', "1", "null", '{"a":[1, 2]}', '{"a": [1,2]}'],
    ['"b"', "2", '{"a":[1]}'],
  ],
  ["enum with a type", { type: "string", enum: ["a", 1, "bcd"], maxLength: 2 }, ['"a"'], ["1", '"bcd"']],
  [
    "lengths",
    { type: "string", minLength: 2, maxLength: 3 },
    ['"ab"', '"日本語"', '"😀\\n\\u0041"', '"\\ud83d\\ude00a"'],
    ['"a"', '"abcd"', '""'],
  ],
  [
    "pattern",
    { type: "string", pattern: "^[a-c]+\\d$" },
    ['"abc1"', '"a0"'],
    ['"abc"', '"xa1"', '"1"', '"a1 "'],
  ],
  ["pattern within", { type: "string", pattern: "b|é" }, ['"abc"', '"b"', '"xéx"', '"\\nb"'], ['"ac"', '""']],
  [
    "pattern with escapes",
    { type: "string", pattern: '^["\\\\/]\\n?$' },
    ['"\\""', '"\\\\\\n"', '"/"'],
    ['"a"', '"\\/"'],
  ],
  [
    "pattern and length",
    { type: "string", pattern: "^a*$", minLength: 2, maxLength: 3 },
    ['"aa"', '"aaa"'],
    ['"a"', '"aaaa"'],
  ],
  [
    "two patterns",
    { allOf: [{ type: "string", pattern: "a" }, { pattern: "b" }] },
    ['"ab"', '"bxa"'],
    ['"a"', '"b"'],
  ],
  [
    "dates",
    { type: "string", format: "date" },
    ['"2024-02-29"', '"2000-02-29"', '"1999-12-31"'],
    ['"2023-02-29"', '"1900-02-29"', '"2024-13-01"', '"2024-04-31"'],
  ],
  [
    "times",
    { type: "string", format: "date-time" },
    ['"2024-01-02T03:04:05Z"', '"2024-01-02T23:59:59.25+01:00"'],
    ['"2024-01-02"', '"2024-01-02T24:00:00Z"'],
  ],
  [
    "uuid",
    { type: "string", format: "uuid" },
    ['"123e4567-e89b-12d3-a456-426614174000"'],
    ['"123e4567"', '"123e4567-e89b-12d3-a456-42661417400g"'],
  ],
  ["email", { type: "string", format: "email" }, ['"a.b@c.de"'], ['"a@b"', '"a b@c.de"', '"@c.de"']],
  ["ipv4", { type: "string", format: "ipv4" }, ['"192.168.0.255"'], ['"256.1.1.1"', '"1.1.1"', '"01.1.1.1"']],
  [
    "ipv6",
    { type: "string", format: "ipv6" },
    ['"::"', '"2001:db8::1"', '"1:2:3:4:5:6:7:8"'],
    ['"1:2:3:4:5:6:7"', '"::1::"', '"12345::"'],
  ],
  [
    "duration",
    { type: "string", format: "duration" },
    ['"P3D"', '"PT5M30S"', '"P1Y2M3DT4H"'],
    ['"P"', '"PT"', '"3D"'],
  ],
  [
    "properties in order",
    { type: "object", properties: { a: { type: "integer" }, b: { type: "boolean" } }, required: ["b"] },
    ['{"a":1,"b":true}', '{"b":false}'],
    ['{"a":1}', '{"b":true,"a":1}', "{}", '{"b":true,"c":1}', '{"a":1,"a":2,"b":true}'],
  ],
  ["no property", { type: "object", properties: {}, additionalProperties: false }, ["{}"], ['{"a":1}']],
  [
    "additional properties",
    { type: "object", properties: { ab: { type: "integer" } }, additionalProperties: { type: "boolean" } },
    ['{"ab":1,"x":true}', '{"a":true,"abc":false}', "{}"],
    ['{"ab":true}', '{"x":1}', '{"\\u0061b":true}', '{"x":true,"ab":1}'],
  ],
  [
    "maps",
    { type: "object", additionalProperties: { type: "integer" }, minProperties: 1, maxProperties: 2 },
    ['{"a":1}', '{"a":1,"b":2}'],
    ["{}", '{"a":1,"b":2,"c":3}', '{"a":true}'],
  ],
  [
    "one of the properties",
    { type: "object", properties: { a: true, b: true }, minProperties: 1 },
    ['{"a":1}', '{"b":[]}'],
    ["{}"],
  ],
  [
    "required only",
    {
      type: "object",
      required: ["x"],
      properties: { a: { type: "null" } },
      additionalProperties: { type: "integer" },
    },
    ['{"x":1}', '{"a":null,"x":2,"y":3}'],
    ['{"x":true}', "{}"],
  ],
  [
    "pattern properties",
    {
      type: "object",
      patternProperties: { "^n_": { type: "integer" }, "^s_": { type: "string" } },
      additionalProperties: false,
    },
    ['{"n_a":1,"s_":"x"}', "{}"],
    ['{"n_a":"x"}', '{"x":1}'],
  ],
  [
    "tuples",
    {
      type: "array",
      prefixItems: [{ type: "integer" }, { type: "string" }],
      items: { type: "null" },
      minItems: 1,
    },
    ["[1]", '[1,"a"]', '[1, "a",null,null]'],
    ["[]", '["a"]', '[1,"a",2]'],
  ],
  [
    "old tuples",
    { type: "array", items: [{ type: "integer" }], additionalItems: false },
    ["[]", "[1]"],
    ["[1,2]"],
  ],
  [
    "counted items",
    { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 2 },
    ["[1]", "[1,2]"],
    ["[]", "[1,2,3]"],
  ],
  [
    "alternatives",
    {
      anyOf: [
        {
          type: "object",
          properties: { tag: { const: "a" }, x: { type: "integer" } },
          required: ["tag", "x"],
        },
        {
          type: "object",
          properties: { tag: { const: "b" }, x: { type: "string" } },
          required: ["tag", "x"],
        },
      ],
    },
    ['{"tag":"a","x":1}', '{"tag": "b", "x": "y"}'],
    ['{"tag":"a","x":"y"}', '{"tag":"b","x":1}', '{"tag":"c","x":1}'],
  ],
  [
    "alternatives beside keywords",
    {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      oneOf: [{ required: ["a"] }, { required: ["b"] }],
    },
    ['{"a":1}', '{"b":1}'],
    ["{}", '{"c":1}'],
  ],
  [
    "allOf",
    {
      allOf: [
        { type: "object", properties: { a: { type: "number" } }, required: ["a"] },
        { properties: { a: { type: "integer", minimum: 3 }, b: { type: "null" } } },
      ],
    },
    ['{"a":3}', '{"a":4,"b":null}'],
    ['{"a":2}', '{"a":3.5}', '{"b":null}'],
  ],
  [
    "$ref beside keywords",
    { $defs: { s: { type: "string" } }, type: "array", items: { $ref: "#/$defs/s", maxLength: 1 } },
    ['["a",""]'],
    ['["ab"]', "[1]"],
  ],
  [
    "a tree",
    tree,
    ['{"name":"r","children":[{"name":"a"},{"name":"b","children":[]}]}'],
    ['{"name":"r","children":[{}]}', '{"children":[]}'],
  ],
  ["a list", list, ['{"value":1,"next":{"value":2,"next":null}}'], ['{"value":1}', '{"value":1,"next":1}']],
  [
    "keywords without a type",
    { properties: { a: { minimum: 5 } }, required: ["a"] },
    ['{"a":5}'],
    ['{"a":4}', "1", "{}"],
  ],
  [
    "annotations",
    {
      title: "t",
      description: "d",
      default: 1,
      examples: [1],
      $schema: "https://json-schema.org/draft/2020-12/schema",
      "x-y": 1,
      type: "null",
    },
    ["null"],
    ["1"],
  ],
];

describe("a schema with", () => {
  it.each(cases)("%s", (_name, schema, right, wrong) => {
    for (const text of right) expect(allows(schema, text), text).toBe(true);
    for (const text of wrong) expect(allows(schema, text), text).toBe(false);
  });

  it.each(cases.filter(([name]) => name !== "alternatives beside keywords"))(
    "%s: what is written is valid",
    (_name, schema) => {
      // oneOf is taken for anyOf. ajv knows no formats here: they are checked above; `nullable` and tuples of older drafts are not of this draft.
      const { nullable, ...rest } = typeof schema === "object" ? (schema as Record<string, unknown>) : {};
      const old = Array.isArray(rest.items);
      const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(
        schema === true ? true : old ? { prefixItems: rest.items, items: false } : rest,
      );
      for (let seed = 0; seed < 10; seed++) {
        const value = JSON.parse(
          randomText(compiler.jsonSchema(schema), tokens, seed, 30).toString(),
        ) as unknown;
        if (nullable === true && value === null) continue;
        expect(validate(value), JSON.stringify(value)).toBe(true);
      }
    },
  );
});

describe("the end", () => {
  it("may come only when the value is complete, and must when nothing can follow", () => {
    const grammar = compiler.jsonSchema({
      type: "object",
      properties: { a: { type: "integer" } },
      required: ["a"],
    });
    for (const open of ["", "{", '{"a', '{"a":', '{"a":1']) expect(masked(grammar, open)).not.toContain(end);
    expect(masked(grammar, '{"a":1}')).toEqual([end]);
    const number = masked(compiler.jsonSchema({ type: "integer", maximum: 99 }), "1");
    expect(number).toContain(end);
    expect(number).toContain("2".charCodeAt(0));
    expect(number).not.toContain("}".charCodeAt(0));
  });

  it("is followed by nothing, and what is not allowed is not taken", () => {
    const constraint = compiler.jsonSchema({ const: 1 }).start();
    expect(() => constraint.accept(0x32)).toThrow(InternalError);
    constraint.accept(0x31);
    constraint.accept(end);
    const mask = new Int32Array(Math.ceil(tokens.vocabularySize / 32)).fill(-1);
    constraint.fillMask(mask);
    expect(allowedTokens(mask, tokens.vocabularySize)).toEqual([end]);
  });

  it("is not taken for a special token of another meaning", () => {
    const special = testTokens([], ["<pad>", "[TOOL_CALLS]"]);
    const grammar = new GrammarCompiler(special).jsonObject();
    const mask = new Int32Array(Math.ceil(special.vocabularySize / 32));
    grammar.start().fillMask(mask);
    for (const id of allowedTokens(mask, special.vocabularySize))
      expect(special.tokenText(id).special).toBe(false);
  });
});

it("writes only well-formed UTF-8, whatever tokens cut characters", () => {
  const grammar = compiler.jsonSchema({ type: "string", minLength: 5, maxLength: 30 });
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(randomText(grammar, tokens, seed, 40));
      expect((JSON.parse(text) as string).isWellFormed()).toBe(true);
    }),
    { numRuns: 300 },
  );
});

it("keeps counters of characters apart from what other lengths of tokens tell", () => {
  // Lengths around those of the longest token, whose masks are shared far from the bounds.
  const long = testTokens(["x".repeat(20), `${"x".repeat(9)}"`, `"${"x".repeat(12)}`]);
  const own = new GrammarCompiler(long);
  for (const [minLength, maxLength] of [
    [0, 30],
    [25, 60],
    [40, 41],
    [3, 80],
  ] as const) {
    const grammar = own.jsonSchema({ type: "string", minLength, maxLength });
    for (const length of [0, 1, 2, 3, 9, 24, 25, 29, 30, 31, 39, 40, 41, 42, 59, 60, 61, 79, 80, 81]) {
      const right = length >= minLength && length <= maxLength;
      expect(allowsText(grammar, long, `"${"x".repeat(length)}"`, length), `${length}`).toBe(right);
    }
  }
});

describe("refused, by its place:", () => {
  const refused: readonly [string, unknown, RegExp][] = [
    ["not", { type: "object", properties: { x: { not: {} } } }, /\$\.properties\.x\.not/],
    ["if", { if: {} }, /\$\.if/],
    ["uniqueItems", { type: "array", uniqueItems: true }, /\$\.uniqueItems/],
    ["an unknown keyword", { type: "object", propertys: {} }, /\$\.propertys[\s\S]*"properties"/],
    ["an unknown type", { type: "text" }, /\$\.type/],
    ["an unknown format", { type: "string", format: "isbn" }, /\$\.format[\s\S]*date-time/],
    ["a wrong keyword", { type: "string", minLength: -1 }, /\$\.minLength/],
    ["a schema that is none", { properties: { a: 3 } }, /\$\.properties\.a/],
    ["no schema", "text", /neither an object/],
    ["a $ref elsewhere", { $ref: "https://example.com/x" }, /\$\.\$ref/],
    ["a $ref to nothing", { $ref: "#/$defs/x" }, /names nothing/],
    ["a $ref to itself", { $ref: "#" }, /back to itself/],
    [
      "a $ref to itself by allOf",
      { $defs: { a: { allOf: [{ $ref: "#/$defs/a" }] } }, $ref: "#/$defs/a" },
      /back to itself/,
    ],
    ["a $ref to itself by anyOf", { anyOf: [{ $ref: "#" }, { type: "null" }] }, /back to itself/],
    [
      "a recursion without end",
      { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] },
      /nothing can match/,
    ],
    ["a contradiction", { allOf: [{ type: "string" }, { type: "integer" }] }, /nothing can match/],
    ["false", false, /nothing can match/],
    ["bounds out of order", { type: "integer", minimum: 3, maximum: 2 }, /nothing can match/],
    [
      "an explosion of alternatives",
      {
        allOf: Array.from({ length: 24 }, (_, i) => ({
          anyOf: [{ required: [`a${i}`] }, { required: [`b${i}`] }],
        })),
      },
      /too (many|large)/,
    ],
    ["lookahead", { type: "string", pattern: "^(?=a)b$" }, /lookahead[\s\S]*\$\.pattern/],
    ["a large pattern", { type: "string", pattern: "(x{1,1000}){1,1000}" }, /too large/],
    ["an ambiguous pattern", { type: "string", pattern: "(.*a.{12}){9}" }, /too complex/],
    [
      "many ambiguous patterns",
      { anyOf: Array.from({ length: 900 }, (_, i) => ({ pattern: `a.{8}${i}` })) },
      /too complex/,
    ],
    ["a huge length", { type: "string", maxLength: 1e9 }, /too large/],
    ["a huge array", { type: "array", minItems: 1e9 }, /too large/],
    ["a huge schema", { enum: Array.from({ length: 30_000 }, (_, i) => i) }, /too large/],
  ];
  it.each(refused)("%s", (_name, schema, message) => {
    const error = catchError(() => compiler.jsonSchema(schema));
    expect(error.message).toMatch(message);
    expect(error.requestCode).toBe("invalid_request");
    expect(error.parameter).toBe("response_format");
    expect(error.message.length).toBeLessThan(1000);
  });

  it("a schema of 50,000 levels", () => {
    let schema: unknown = {};
    for (let level = 0; level < 50_000; level++) schema = { items: schema };
    expect(catchError(() => compiler.jsonSchema(schema)).message).toMatch(/nested too deeply/);
  });

  it("a vocabulary that cannot write JSON", () => {
    const few = {
      vocabularySize: 2,
      endTokens: [1],
      tokenText: (id: number) => ({ text: "a", bytes: [97], special: id === 1 }),
    };
    expect(catchError(() => new GrammarCompiler(few).jsonObject()).message).toMatch(/cannot spell/);
  });
});

function catchError(run: () => unknown): RequestError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(RequestError);
    return error as RequestError;
  }
  throw new Error("was not refused");
}

it("keeps the grammars that were used last", () => {
  const own = new GrammarCompiler(tokens, { cachedGrammars: 2 });
  const first = own.jsonSchema({ const: 1 });
  expect(own.jsonSchema({ const: 1 })).toBe(first);
  own.jsonSchema({ const: 2 });
  expect(own.jsonSchema({ const: 1 })).toBe(first);
  own.jsonSchema({ const: 3 });
  expect(own.jsonSchema({ const: 1 })).toBe(first);
  const second = own.jsonSchema({ const: 2 });
  expect(ajv.validate({ const: 2 }, JSON.parse(randomText(second, tokens, 1).toString()))).toBe(true);
});
