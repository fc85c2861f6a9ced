import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError, clip } from "./errors.ts";
import { inspectJson } from "./inspect.ts";

function tooLarge(limit: number): ApiError {
  return new ApiError(413, `the body is larger than ${limit} bytes`, { code: "body_too_large" });
}

/** @throws ApiError 415 for anything but JSON in plain UTF-8 */
function checkHeaders(request: IncomingMessage): void {
  const contentType = request.headers["content-type"] ?? "";
  const [media, ...parameters] = contentType.split(";").map((part) => part.trim().toLowerCase());
  if (media !== "application/json") {
    const received = contentType === "" ? "none" : JSON.stringify(clip(contentType, 100));
    throw new ApiError(415, `the content type must be application/json; received ${received}`, {
      code: "unsupported_media_type",
    });
  }
  const charset = parameters.find((parameter) => parameter.startsWith("charset="))?.slice(8);
  if (charset !== undefined && !/^"?utf-?8"?$/.test(charset)) {
    throw new ApiError(415, "the body must be UTF-8", { code: "unsupported_media_type" });
  }
  const encoding = request.headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") {
    throw new ApiError(415, "compressed bodies are not accepted: send it without a content-encoding", {
      code: "unsupported_media_type",
    });
  }
}

/** The body's bytes. Holds no more than `limit` of them. @throws ApiError 413; 400 where the client went away */
function readBytes(request: IncomingMessage, limit: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let size = 0;
    const stop = (error?: Error): void => {
      request.off("data", take).off("end", finish).off("error", fail).off("close", fail);
      if (error !== undefined) reject(error);
    };
    const take = (piece: Buffer): void => {
      size += piece.length;
      if (size > limit) stop(tooLarge(limit));
      else pieces.push(piece);
    };
    const finish = (): void => {
      stop();
      resolve(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, size));
    };
    const fail = (): void => stop(new ApiError(400, "the body ended early", { code: "incomplete_body" }));
    request.on("data", take).on("end", finish).on("error", fail).on("close", fail);
  });
}

/** The bytes as text. @throws ApiError 400 where they are not UTF-8 */
function decode(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ApiError(400, "the body is not UTF-8", { code: "invalid_unicode", cause });
  }
}

/**
 * The object in the body of a request. Nothing is read where the headers alone refuse it.
 * @param limit bytes at the most
 * @throws ApiError 400, 413 or 415
 */
export async function readObject(
  request: IncomingMessage,
  response: ServerResponse,
  limit: number,
): Promise<Record<string, unknown>> {
  checkHeaders(request);
  if (Number(request.headers["content-length"] ?? 0) > limit) throw tooLarge(limit);
  if (request.headers.expect !== undefined) response.writeContinue();
  const text = decode(await readBytes(request, limit));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ApiError(400, "the body is not JSON", { code: "invalid_json", cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ApiError(400, "the body must be a JSON object", { code: "invalid_json" });
  }
  inspectJson(value);
  return value as Record<string, unknown>;
}
