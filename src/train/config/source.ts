import { readFileSync } from "node:fs";
import { type Document, isMap, isNode, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { ConfigError } from "../../base/errors.ts";

/** Keys and indices from the config's root to a value. */
export type ConfigPath = readonly (string | number)[];

/** A config path as people write it: `optimizer.params.betas[0]`. */
export function formatPath(path: ConfigPath): string {
  return path.reduce<string>(
    (text, part) => (typeof part === "number" ? `${text}[${part}]` : text === "" ? part : `${text}.${part}`),
    "",
  );
}

/** A config file, parsed, that can say where each of its values stands. */
export interface ConfigSource {
  /** The file, as it was named. */
  readonly file: string;
  /** The root section as plain data. */
  readonly data: Record<string, unknown>;
  /** The line and column (from 1) of a key, or of its nearest ancestor that is in the file. */
  locate(path: ConfigPath): { readonly line: number; readonly column: number };
}

/**
 * Reads a YAML or JSON config (JSON is read as the YAML that it is).
 * @throws ConfigError where the file is missing, is not YAML (all syntax errors at once, with their
 * lines), repeats a key, or is not a section of keys.
 */
export function readSource(file: string): ConfigSource {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    throw new ConfigError("config_not_found", `cannot read the config ${file}`, {
      expected: "a YAML or JSON file",
      received: code === "ENOENT" ? "no such file" : code === "EISDIR" ? "a folder" : String(code),
      cause,
    });
  }
  return parseSource(file, text);
}

/** The config in `text`, as `readSource` reads it from a file. */
export function parseSource(file: string, text: string): ConfigSource {
  const lines = new LineCounter();
  const document = parseDocument(text.replace(/^\uFEFF/, ""), { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  if (document.errors.length > 0) {
    const problems = document.errors.map((error) => {
      const { line, column } = at(error.pos[0]);
      const repeated = error.code === "DUPLICATE_KEY" ? keyAt(text, error.pos[0]) : "";
      return `${file}:${line}:${column}  ${repeated === "" ? error.message : `the key ${repeated} is given twice`}`;
    });
    const many = problems.length > 1;
    throw new ConfigError(
      "config_syntax",
      many
        ? `${file} is not valid YAML or JSON\n  ${problems.join("\n  ")}`
        : `${file} is not valid YAML or JSON`,
      many ? {} : { where: problems[0]! },
    );
  }
  const data = plainData(file, document);
  if (data === null || typeof data !== "object" || Array.isArray(data)) {
    throw new ConfigError("config_not_a_section", `${file} does not hold a config`, {
      expected: "keys with values, such as output_dir: runs/first",
      received:
        data === null
          ? "an empty file"
          : Array.isArray(data)
            ? "a list"
            : `the ${typeof data} ${JSON.stringify(data)}`,
    });
  }
  return {
    file,
    data: data as Record<string, unknown>,
    locate: (path) => at(offsetOf(document.contents, path)),
  };
}

function plainData(file: string, document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw new ConfigError("config_syntax", `${file} cannot be read`, {
      received: (cause as Error).message,
      cause,
    });
  }
}

/** The offset of the key that `path` ends in, or of the deepest ancestor that is there. */
function offsetOf(root: Node | null, path: ConfigPath): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part));
      if (pair === undefined) break;
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof part === "number") {
      node = node.items[part];
      if (!isNode(node)) break;
      offset = node.range?.[0] ?? offset;
    } else break;
  }
  return offset;
}

/** The key that starts at an offset, for the message about repeated keys. */
function keyAt(text: string, offset: number): string {
  return /^["']?([\w.-]+)/.exec(text.slice(offset, offset + 80))?.[1] ?? "";
}
