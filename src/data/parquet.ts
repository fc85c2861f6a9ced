import { asyncBufferFromFile, type FileMetaData, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { FileFormatError, SlipstreamError } from "../base/errors.ts";
import type { DataDocument, DocumentFields } from "./document.ts";
import { messageOf } from "./files.ts";
import { documentFromRecord, missingField } from "./jsonl.ts";

/** Rows decoded at a time within a row group. */
const rowsAtATime = 1000;

/**
 * The documents of a Parquet file, one a row. Only the columns asked for are read, some rows at a time.
 * @throws FileFormatError where the file is not Parquet; DataError where a column is missing (with the
 * names that exist) or a row holds no text.
 */
export async function* readParquet(path: string, fields: DocumentFields): AsyncGenerator<DataDocument> {
  const file = await asyncBufferFromFile(path);
  const metadata = await orCorrupt(path, () => parquetMetadataAsync(file));
  const columns = [fields.content, ...(fields.prompt === undefined ? [] : [fields.prompt])];
  const existing = topLevelColumns(metadata);
  for (const column of columns) {
    if (!existing.includes(column)) throw missingField(column, existing, path, "column");
  }
  let groupStart = 0;
  for (const group of metadata.row_groups) {
    const groupEnd = groupStart + Number(group.num_rows);
    for (let rowStart = groupStart; rowStart < groupEnd; rowStart += rowsAtATime) {
      const rowEnd = Math.min(groupEnd, rowStart + rowsAtATime);
      const rows = await orCorrupt(path, () =>
        parquetReadObjects({ file, metadata, columns, rowStart, rowEnd, compressors }),
      );
      for (const [index, row] of rows.entries()) {
        yield documentFromRecord(plainRow(row), fields, `${path}, row ${rowStart + index}`, "column");
      }
    }
    groupStart = groupEnd;
  }
}

/** Lists come as arrays of numbers or of 64-bit integers, or as typed arrays. */
function plainRow(row: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))
        ? Array.from(value as ArrayLike<unknown>, (each) => (typeof each === "bigint" ? Number(each) : each))
        : value,
    ]),
  );
}

/** The schema is a flattened tree, root first: a column is a node whose parent is the root. */
function topLevelColumns(metadata: FileMetaData): string[] {
  const columns: string[] = [];
  let index = 1;
  const skipSubtree = (): void => {
    const children = metadata.schema[index++]?.num_children ?? 0;
    for (let child = 0; child < children; child++) skipSubtree();
  };
  while (index < metadata.schema.length) {
    columns.push(metadata.schema[index]!.name);
    skipSubtree();
  }
  return columns;
}

async function orCorrupt<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof SlipstreamError) throw cause;
    throw new FileFormatError("corrupt_parquet", "a data file cannot be read as Parquet", {
      where: path,
      received: messageOf(cause),
      hint: "the file may be truncated or of another format: set format, or make it again",
      cause,
    });
  }
}
