import { z } from "zod";
import { integer, text } from "./fields.ts";

const files = z.union([text(), z.array(text()).min(1)]);

/** `data`: the files to learn from and how they become rows of tokens. */
export const dataSchema = z
  .strictObject({
    train: files.meta({ typeText: "path or list of paths" }).describe("The file or files to train on."),
    validation: z
      .union([z.number().gt(0).lt(1), text(), z.array(text()).min(1)])
      .optional()
      .meta({ typeText: "path, list of paths, or fraction between 0 and 1" })
      .describe(
        "Files to evaluate on, or the fraction of `train` to hold out. Without it, nothing is evaluated.",
      ),
    format: z
      .enum(["auto", "text", "jsonl", "parquet"])
      .default("auto")
      .describe("What the files hold; `auto` goes by their extensions."),
    text_field: text().optional().describe("JSONL and Parquet: the field with the text. Without it, `text`."),
    prompt_field: text()
      .optional()
      .describe(
        "JSONL and Parquet: the field with the prompt, which is read but not learned. Needs `completion_field`.",
      ),
    completion_field: text()
      .optional()
      .describe(
        "JSONL and Parquet: the field with the completion, on which the loss is taken. Needs `prompt_field`.",
      ),
    sequence_length: integer(2).describe("Tokens of a row."),
    packing: z
      .enum(["rows", "best_fit"])
      .default("rows")
      .describe(
        "`rows` joins the documents and cuts the stream into rows; `best_fit` keeps documents whole where they fit, each in the row with the least room left.",
      ),
    document_boundaries: z
      .boolean()
      .default(true)
      .describe("Keep attention and positions within a document where a row holds several."),
    shuffle: z
      .boolean()
      .default(true)
      .describe("Visit the rows in a seeded random order, a new one every epoch."),
    cache_dir: text()
      .optional()
      .describe("Where tokenised data is kept between runs. Without it, `<output_dir>/cache`."),
  })
  .describe("What is learned from.");
