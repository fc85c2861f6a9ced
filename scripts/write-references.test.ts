import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { configReferenceMarkdown } from "../src/train/config/index.ts";

test("docs/config.md is what the schema says (run `node scripts/write-references.ts` to renew it)", () => {
  const page = join(dirname(fileURLToPath(import.meta.url)), "../docs/config.md");
  expect(readFileSync(page, "utf8")).toBe(configReferenceMarkdown());
});
