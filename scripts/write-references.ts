/** Writes the pages of `docs/` that are made from the code. A test holds them together. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { configReferenceMarkdown } from "../src/train/config/index.ts";

const docs = join(dirname(fileURLToPath(import.meta.url)), "../docs");
writeFileSync(join(docs, "config.md"), configReferenceMarkdown());
