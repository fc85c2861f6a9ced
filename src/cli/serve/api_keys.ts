import { readFile } from "node:fs/promises";
import { environmentVariables, readVariable } from "../../base/environment.ts";
import { ConfigError } from "../../base/errors.ts";

/** A key that a client can send in a header. */
const sendable = /^[\x21-\x7e]+$/;

async function readKeyFile(path: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new ConfigError("bad_key_file", "the file of API keys cannot be read", {
      where: `--api-key-file ${path}`,
      expected: "a text file with one key a line",
      cause,
    });
  }
  const keys = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length > 0) return keys;
  // A server that was meant to be locked must not stand open.
  throw new ConfigError("bad_key_file", "the file of API keys holds none", {
    where: `--api-key-file ${path}`,
  });
}

/**
 * Every API key that was given: by option, by file and by environment.
 * @throws ConfigError where one could not be sent, or a file holds none
 */
export async function gatherKeys(options: {
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
}): Promise<string[]> {
  const { apiKey = [], apiKeyFile } = options;
  const fromFile = apiKeyFile === undefined ? [] : await readKeyFile(apiKeyFile);
  const fromEnvironment =
    readVariable(environmentVariables.apiKey)
      ?.split(",")
      .map((key) => key.trim()) ?? [];
  const keys = [...apiKey, ...fromFile, ...fromEnvironment];
  for (const key of keys) {
    if (sendable.test(key)) continue;
    throw new ConfigError("bad_api_key", "an API key is empty, or holds what no header can carry", {
      expected: "visible ASCII characters without spaces",
    });
  }
  return [...new Set(keys)];
}
