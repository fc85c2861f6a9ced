import { glob, readdir, stat } from "node:fs/promises";
import { extname, join, resolve } from "node:path";
import { ConfigError, DataError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import type { DataDocument, DataSource, DocumentFields } from "./document.ts";

import { readJsonLines } from "./jsonl.ts";
import { openPackageText } from "./package_text.ts";
import { readParquet } from "./parquet.ts";
import { readTextFile } from "./text_file.ts";

/** How the bytes of a file become documents. */
export type DataFormat = "text" | "jsonl" | "parquet";

/** Which part of the data is what. */
export interface SourceOptions {
  /** The format of every file (default: by extension, `.jsonl`, `.ndjson` and `.parquet`, else text). */
  readonly format?: DataFormat;
  /** The field or column that holds the text, or an array of token ids (default `text`). */
  readonly textField?: string;
  /** The field or column with a prompt on which no loss is taken; goes with `completionField`. */
  readonly promptField?: string;
  /** The field or column with the text that follows the prompt and is learnt. */
  readonly completionField?: string;
  /** Splits a text file into documents (default: a file is one document). */
  readonly documentSeparator?: string;
}

const extensions: Readonly<Record<string, DataFormat>> = {
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".parquet": "parquet",
  ".txt": "text",
  ".md": "text",
};

/**
 * Finds the data that paths name: files, folders (every data file below), globs such as `data/*.txt`,
 * and `package:NAME` for the text that an npm package ships. The order is the paths' order, and by name
 * within a folder or glob. Nothing is read before `documents()` is called.
 * @throws DataError where a path names nothing.
 */
export async function openSources(
  paths: string | readonly string[],
  options: SourceOptions = {},
): Promise<DataSource[]> {
  const fields = documentFields(options);
  const sources: DataSource[] = [];
  for (const path of typeof paths === "string" ? [paths] : paths) {
    if (path.startsWith("package:")) {
      sources.push(await openPackageText(path.slice("package:".length)));
      continue;
    }
    for (const file of await findFiles(path)) sources.push(await openFile(file, options, fields));
  }
  if (sources.length === 0) {
    throw new DataError("no_data", "no data was given", { expected: "at least one path" });
  }
  return sources;
}

/**
 * The documents of all sources, one source after the other.
 * @throws DataError naming a source that has no document, or none with any text.
 */
export async function* documentsOf(sources: readonly DataSource[]): AsyncGenerator<DataDocument> {
  for (const source of sources) {
    let isEmpty = true;
    for await (const document of source.documents()) {
      if (isBlank(document)) continue;
      isEmpty = false;
      yield document;
    }
    if (isEmpty) {
      throw new DataError("empty_data", "a data file has nothing in it to learn from", {
        where: source.name,
        expected: "at least one document with text",
        hint: "remove it from the config, or check how it was made",
      });
    }
  }
}

function isBlank(document: DataDocument): boolean {
  return typeof document.content === "string"
    ? !/\S/u.test(document.content) && document.prompt === undefined
    : document.content.length === 0;
}

function documentFields(options: SourceOptions): DocumentFields {
  if (options.promptField === undefined && options.completionField === undefined) {
    return { content: options.textField ?? "text" };
  }
  if (options.promptField === undefined || options.completionField === undefined) {
    throw new ConfigError("bad_data_fields", "a prompt field and a completion field go together", {
      expected: "both prompt_field and completion_field, or neither",
      received: options.promptField === undefined ? "only completion_field" : "only prompt_field",
    });
  }
  if (options.textField !== undefined) {
    throw new ConfigError("bad_data_fields", "text_field cannot stand beside prompt_field", {
      hint: "remove text_field, or both prompt_field and completion_field",
    });
  }
  return { content: options.completionField, prompt: options.promptField };
}

async function openFile(path: string, options: SourceOptions, fields: DocumentFields): Promise<DataSource> {
  const { size, mtimeMs } = await stat(path);
  const format = options.format ?? extensions[extname(path).toLowerCase()] ?? "text";
  if (format === "text" && fields.prompt !== undefined) {
    throw new ConfigError("bad_data_fields", "a text file has no fields", {
      where: path,
      hint: "prompt_field and completion_field need JSONL or Parquet",
    });
  }
  return {
    name: path,
    identity: JSON.stringify([
      "file",
      resolve(path),
      size,
      mtimeMs,
      format,
      format === "text" ? (options.documentSeparator ?? null) : fields,
    ]),
    documents() {
      switch (format) {
        case "text":
          return readTextFile(path, options.documentSeparator);
        case "jsonl":
          return readJsonLines(path, fields);
        case "parquet":
          return readParquet(path, fields);
        default:
          throw new ConfigError("unknown_format", `unknown data format "${String(format satisfies never)}"`, {
            expected: "text, jsonl or parquet",
          });
      }
    },
  };
}

async function findFiles(path: string): Promise<string[]> {
  try {
    const found = await stat(path);
    if (!found.isDirectory()) return [path];
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile() && extname(entry.name).toLowerCase() in extensions)
      .map((entry) => join(entry.parentPath, entry.name));
    if (files.length > 0) return files.sort();
    throw new DataError("missing_data", "a data folder has no data files in it", {
      where: path,
      expected: `files ending in ${Object.keys(extensions).join(", ")}`,
    });
  } catch (cause) {
    if (!["ENOENT", "ENOTDIR"].includes(systemErrorCode(cause) ?? "")) throw cause;
  }
  const isPattern = /[*?[{]/.test(path);
  const files: string[] = [];
  if (isPattern) {
    for await (const file of glob(path)) if ((await stat(file)).isFile()) files.push(file);
  }
  if (files.length > 0) return files.sort();
  throw new DataError(
    "missing_data",
    isPattern ? "no file matches a data pattern" : "a data file is missing",
    {
      where: path,
      ...(isPattern ? {} : { expected: "a file, a folder, a pattern such as data/*.txt, or package:NAME" }),
      hint: `paths are taken from the working directory, ${process.cwd()}`,
    },
  );
}
