import { createReadStream } from "node:fs";
import { DataError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import type { DataDocument } from "./document.ts";
import { messageOf } from "./files.ts";

/** A longer text without separators is cut into documents of about this many characters. */
const longestDocument = 4 * 2 ** 20;

/**
 * Reads a file as UTF-8, chunk by chunk (a byte order mark is dropped).
 * @throws DataError where the file cannot be read or its bytes are not UTF-8.
 */
export async function* readUtf8(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 18 })) {
      yield decoder.decode(chunk as Buffer, { stream: true });
      bytes += (chunk as Buffer).length;
    }
    yield decoder.decode();
  } catch (cause) {
    if (systemErrorCode(cause) !== undefined) {
      throw new DataError("unreadable_data", "cannot read a data file", {
        where: path,
        received: messageOf(cause),
        cause,
      });
    }
    if (!(cause instanceof TypeError)) throw cause;
    throw new DataError("not_utf8", "a data file is not UTF-8 text", {
      where: `${path}, within 256 KiB after byte ${bytes}`,
      hint: "convert it, for example with iconv -f latin1 -t utf-8",
      cause,
    });
  }
}

/**
 * The documents of a text file: the parts between separators, or the whole file. A part of more than
 * 4 Mi characters comes as several documents, cut at line ends where there are any, so that no more
 * than that is in memory.
 */
export async function* readTextFile(path: string, separator = ""): AsyncGenerator<DataDocument> {
  let rest = "";
  let count = 0;
  const document = (content: string): DataDocument => ({
    name: separator === "" ? path : `${path}, document ${++count}`,
    content,
  });
  for await (const chunk of readUtf8(path)) {
    const searchFrom = Math.max(0, rest.length - separator.length);
    rest += chunk;
    if (separator !== "") {
      let start = 0;
      for (let end = rest.indexOf(separator, searchFrom); end >= 0; end = rest.indexOf(separator, start)) {
        yield document(rest.slice(start, end));
        start = end + separator.length;
      }
      rest = rest.slice(start);
    }
    if (rest.length > longestDocument) {
      const cut = cutAfterLine(rest);
      yield document(rest.slice(0, cut));
      rest = rest.slice(cut);
    }
  }
  if (rest !== "") yield document(rest);
}

function cutAfterLine(text: string): number {
  const lineEnd = text.lastIndexOf("\n");
  if (lineEnd > 0) return lineEnd + 1;
  const last = text.charCodeAt(text.length - 1);
  const splitsSurrogatePair = last >= 0xd800 && last < 0xdc00;
  return splitsSurrogatePair ? text.length - 1 : text.length;
}
