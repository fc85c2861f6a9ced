import { FileFormatError } from "../../base/errors.ts";
import type { MetadataValue } from "./types.ts";

/** What a reader of metadata may ask for. */
interface Kinds {
  readonly string: string;
  readonly flag: boolean;
  /** A finite number. */
  readonly number: number;
  /** A whole number that is not negative and is exact. */
  readonly count: number;
  readonly strings: readonly string[];
  readonly numbers: ArrayLike<number>;
}

const kinds: {
  readonly [Kind in keyof Kinds]: { readonly text: string; accepts(value: MetadataValue): boolean };
} = {
  string: { text: "a string", accepts: (value) => typeof value === "string" },
  flag: { text: "true or false", accepts: (value) => typeof value === "boolean" },
  number: { text: "a number", accepts: (value) => Number.isFinite(value) },
  count: {
    text: "a whole number",
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
  },
  strings: {
    text: "a list of strings",
    accepts: (value) => Array.isArray(value) && value.every((item) => typeof item === "string"),
  },
  numbers: {
    text: "a list of numbers",
    accepts: (value) =>
      ArrayBuffer.isView(value) || (Array.isArray(value) && value.every((item) => typeof item === "number")),
  },
};

/** The metadata of a GGUF file, with errors that name the file and the key. */
export class Metadata {
  readonly #values: ReadonlyMap<string, MetadataValue>;
  readonly #path: string;

  constructor(values: ReadonlyMap<string, MetadataValue>, path: string) {
    this.#values = values;
    this.#path = path;
  }

  /** Every key with its value, as the file has it. */
  get values(): ReadonlyMap<string, MetadataValue> {
    return this.#values;
  }

  /** A value, or undefined where the key is absent. @throws FileFormatError where it holds something else. */
  get<Kind extends keyof Kinds>(key: string, kind: Kind): Kinds[Kind] | undefined {
    const value = this.#values.get(key);
    if (value === undefined || kinds[kind].accepts(value)) return value as Kinds[Kind] | undefined;
    throw this.error(key, kinds[kind].text, describeValue(value));
  }

  /** A value that must be there. @throws FileFormatError. */
  need<Kind extends keyof Kinds>(key: string, kind: Kind): Kinds[Kind] {
    const value = this.get(key, kind);
    if (value === undefined) throw this.error(key, kinds[kind].text, "no such key");
    return value;
  }

  /** The error for a key whose value cannot be used. */
  error(key: string, expected: string, received: string): FileFormatError {
    return new FileFormatError("gguf_metadata", "the metadata of a GGUF file cannot be used", {
      where: `key ${JSON.stringify(key)} of ${this.#path}`,
      expected,
      received,
    });
  }
}

/** A metadata value for a message: short, whatever it holds. */
export function describeValue(value: MetadataValue): string {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object") {
    const text = JSON.stringify(value) ?? String(value);
    return text.length > 100 ? `${text.slice(0, 100)}…` : text;
  }
  return `a list of ${value.length} values`;
}
