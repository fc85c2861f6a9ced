import { readFile } from "node:fs/promises";
import { FileFormatError, InternalError } from "../base/errors.ts";
import { asReadError } from "./file_errors.ts";

/** What JSON can hold. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;

/** A JSON object. A key that is undefined is the same as a key that is absent. */
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** True of objects, not of arrays or null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The JSON object in a file.
 * @throws FileFormatError where the file is missing, is not JSON, or holds no object.
 */
export async function readJsonObject(path: string): Promise<JsonObject> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw asReadError(error, path);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FileFormatError("not_json", "a file does not hold JSON", {
      where: path,
      expected: "one JSON object",
      received: error instanceof Error ? error.message : String(error),
      cause: error,
    });
  }
  if (!isJsonObject(value)) {
    throw new FileFormatError("not_json", "a file does not hold a JSON object", {
      where: path,
      expected: "one JSON object",
      received: value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`,
    });
  }
  return value;
}

/**
 * Indented JSON text that reads back as the same value.
 * @throws InternalError naming the path of a number that JSON would turn into null.
 */
export function stringifyExactly(value: JsonObject): string {
  requireFinite(value, "");
  return `${JSON.stringify(value, null, 2)}\n`;
}

function requireFinite(value: JsonValue | undefined, path: string): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new InternalError(`${path} is ${value}, which JSON cannot hold`);
  }
  if (typeof value !== "object" || value === null) return;
  for (const [key, child] of Object.entries(value))
    requireFinite(child, path === "" ? key : `${path}.${key}`);
}
