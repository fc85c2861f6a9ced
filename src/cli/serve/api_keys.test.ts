import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { gatherKeys } from "./api_keys.ts";

const folder = mkdtempSync(join(tmpdir(), "keys-"));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.unstubAllEnvs());

function file(text: string): string {
  const path = join(folder, "keys.txt");
  writeFileSync(path, text);
  return path;
}

test("keys of options, file and environment come together, each once", async () => {
  vi.stubEnv("SLIPSTREAM_API_KEY", "c, d");
  const apiKeyFile = file("# for the team\nb\r\n\n  c  \n");
  expect(await gatherKeys({ apiKey: ["a", "b"], apiKeyFile })).toEqual(["a", "b", "c", "d"]);
  vi.stubEnv("SLIPSTREAM_API_KEY", "");
  expect(await gatherKeys({})).toEqual([]);
});

test("a file without keys does not leave the server open", async () => {
  await expect(gatherKeys({ apiKeyFile: file("\n# none\n") })).rejects.toThrow(
    "the file of API keys holds none",
  );
  await expect(gatherKeys({ apiKeyFile: join(folder, "absent") })).rejects.toThrow("cannot be read");
});

test("a key that no client could send is refused, and not shown", async () => {
  for (const apiKey of [["two words"], ["schlüssel"], [""]]) {
    const refusal = gatherKeys({ apiKey });
    await expect(refusal).rejects.toMatchObject({ code: "bad_api_key" });
    if (apiKey[0] !== "") await expect(refusal).rejects.not.toThrow(apiKey[0]);
  }
});
