import { DataError } from "../base/errors.ts";
import { nearest } from "../base/suggest.ts";
import type { DataDocument, DocumentFields } from "./document.ts";
import { messageOf } from "./files.ts";
import { readUtf8 } from "./text_file.ts";

/**
 * The documents of a JSON Lines file: one object a line, blank lines skipped.
 * @throws DataError with `file:line` where a line is not a JSON object or lacks a field.
 */
export async function* readJsonLines(path: string, fields: DocumentFields): AsyncGenerator<DataDocument> {
  let number = 0;
  for await (const line of readLines(path)) {
    number++;
    if (line.trim() === "") continue;
    yield documentFromRecord(parseRecord(line, `${path}:${number}`), fields, `${path}:${number}`, "field");
  }
}

/**
 * A document from a record's fields.
 * @throws DataError where a field is missing (with the names that exist) or holds no text.
 */
export function documentFromRecord(
  record: Readonly<Record<string, unknown>>,
  fields: DocumentFields,
  where: string,
  kind: "field" | "column",
): DataDocument {
  const content = fieldOf(record, fields.content, where, kind);
  if (fields.prompt === undefined) {
    if (typeof content === "string" || isTokenIds(content)) return { name: where, content };
    throw wrongField(fields.content, content, "a string, or an array of token ids", where, kind);
  }
  const prompt = fieldOf(record, fields.prompt, where, kind);
  if (typeof content !== "string") throw wrongField(fields.content, content, "a string", where, kind);
  if (typeof prompt !== "string") throw wrongField(fields.prompt, prompt, "a string", where, kind);
  return { name: where, content, prompt };
}

/** The error of a field or column that is not there. */
export function missingField(
  name: string,
  existing: readonly string[],
  where: string,
  kind: "field" | "column",
): DataError {
  const near = nearest(name, existing);
  return new DataError("missing_field", `the data has no ${kind} "${name}"`, {
    where,
    expected: `a ${kind} "${name}"`,
    received: `${kind}s ${existing.map((each) => JSON.stringify(each)).join(", ") || "(none)"}`,
    hint:
      near === undefined
        ? "set text_field to the one that holds the text"
        : `did you mean ${JSON.stringify(near)}? Set text_field to the one that holds the text`,
  });
}

/** Lines end at `\n` alone: other line separators of Unicode may stand within a JSON string. */
async function* readLines(path: string): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of readUtf8(path)) {
    let start = 0;
    for (let end = chunk.indexOf("\n"); end >= 0; end = chunk.indexOf("\n", start)) {
      yield rest + chunk.slice(start, end);
      rest = "";
      start = end + 1;
    }
    rest += chunk.slice(start);
  }
  if (rest !== "") yield rest;
}

function parseRecord(line: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new DataError("invalid_json", "a line of the data is not valid JSON", {
      where,
      expected: "one JSON object a line",
      received: messageOf(cause),
      cause,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new DataError("invalid_json", "a line of the data is not a JSON object", {
      where,
      expected: 'an object such as {"text": "…"}',
      received: line.length > 60 ? `${line.slice(0, 60)}…` : line,
    });
  }
  return value as Record<string, unknown>;
}

function fieldOf(
  record: Readonly<Record<string, unknown>>,
  name: string,
  where: string,
  kind: "field" | "column",
): unknown {
  if (Object.hasOwn(record, name)) return record[name];
  throw missingField(name, Object.keys(record), where, kind);
}

function wrongField(
  name: string,
  value: unknown,
  expected: string,
  where: string,
  kind: "field" | "column",
): DataError {
  const received = typeof value === "object" && value !== null ? "an object or mixed array" : String(value);
  return new DataError("wrong_field", `the ${kind} "${name}" does not hold text`, {
    where,
    expected,
    received: received.length > 60 ? `${received.slice(0, 60)}…` : received,
  });
}

function isTokenIds(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((each) => typeof each === "number");
}
