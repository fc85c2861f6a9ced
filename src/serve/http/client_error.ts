import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { ApiError } from "./errors.ts";

function describe(code: string | undefined): ApiError {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return new ApiError(408, "the request took too long to arrive", { code: "request_timeout" });
  }
  if (code === "HPE_HEADER_OVERFLOW") {
    return new ApiError(431, "the headers are too large", { code: "headers_too_large" });
  }
  return new ApiError(400, "the request is not well-formed HTTP", { code: "invalid_http" });
}

/**
 * Answers a connection on which no request could be read, and closes it.
 * @param answering whether an answer was already under way, which cannot be interrupted by another
 */
export function answerClientError(error: NodeJS.ErrnoException, socket: Duplex, answering: boolean): void {
  if (error.code === "ECONNRESET" || !socket.writable || answering) {
    socket.destroy();
    return;
  }
  const answer = describe(error.code);
  const body = answer.body();
  const head = [
    `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}
