import { SlipstreamError } from "../../base/errors.ts";
import { RequestError, type RequestErrorCode } from "../engine/errors.ts";

/** What the header and body of a refusal say besides its message. */
export interface ApiErrorDetails {
  /** OpenAI's kind of error; by default `invalid_request_error` below 500 and `server_error` from there on. */
  readonly type?: string;
  /** The field of the request that is wrong. */
  readonly parameter?: string | undefined;
  /** A stable word for programs. */
  readonly code?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/**
 * Bytes of JSON that a message and the name of a field may take: with the rest of the body they stay within 1 kB,
 * however much of the request they repeat.
 */
const messageBytes = 700;
const parameterBytes = 150;

/** Seconds after which a refused client may come again. */
export const retryAfterSeconds = 1;

/** A refusal or failure that is answered with an HTTP status and OpenAI's error body. */
export class ApiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly parameter: string | undefined;
  readonly code: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, details: ApiErrorDetails = {}) {
    super(fit(message, messageBytes), details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "ApiError";
    this.status = status;
    this.type = details.type ?? (status < 500 ? "invalid_request_error" : "server_error");
    this.parameter = details.parameter === undefined ? undefined : fit(details.parameter, parameterBytes);
    this.code = details.code;
    this.headers = details.headers ?? {};
  }

  /** `{"error":{"message","type","param","code"}}`, as OpenAI's clients read it. */
  body(): string {
    return JSON.stringify({
      error: {
        message: this.message,
        type: this.type,
        param: this.parameter ?? null,
        code: this.code ?? null,
      },
    });
  }
}

/** The text, cut at `limit` code units with a mark where it was longer; never within a character. */
export function clip(text: string, limit: number): string {
  if (text.length <= limit) return text;
  return `${text.slice(0, limit - 1).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** The text, cut so that it takes at most `bytes` as JSON. */
function fit(text: string, bytes: number): string {
  let fitted = clip(text, bytes);
  while (Buffer.byteLength(JSON.stringify(fitted)) > bytes)
    fitted = clip(fitted, Math.floor(fitted.length * 0.8));
  return fitted;
}

/** A 400 about one field. */
export function invalid(parameter: string, message: string, code = "invalid_value"): ApiError {
  return new ApiError(400, message, { parameter, code });
}

/** A 503 that says when to come again. */
export function unavailable(message: string, code: string): ApiError {
  return new ApiError(503, message, { code, headers: { "retry-after": String(retryAfterSeconds) } });
}

const statusOfRefusal: Record<RequestErrorCode, number> = {
  queue_full: 503,
  context_length_exceeded: 400,
  invalid_request: 400,
  not_ready: 503,
};

/** The name that HTTP gives a field of the engine's request: `maxTokens` is `max_tokens`. */
function fieldName(parameter: string): string {
  return parameter.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * What to answer for anything that was thrown. What the engine refused keeps its code; what nobody foresaw is a
 * 500 that says nothing of the inside.
 */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof RequestError) {
    const status = statusOfRefusal[error.requestCode];
    const { requestCode: code, message } = error;
    if (status === 503) return unavailable(message, code);
    const parameter = error.parameter === undefined ? undefined : fieldName(error.parameter);
    return new ApiError(status, message, { code, parameter, cause: error });
  }
  const internal = !(error instanceof SlipstreamError) || error.code === "internal";
  const message = internal ? "the server failed while it handled the request" : error.message;
  return new ApiError(500, message, { code: "internal_error", cause: error });
}
