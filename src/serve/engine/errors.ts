import { type ErrorDetails, SlipstreamError } from "../../base/errors.ts";

/** Why a request was refused before anything ran. */
export type RequestErrorCode = "queue_full" | "context_length_exceeded" | "invalid_request" | "not_ready";

/** A request that cannot run. `parameter` names the part of it that is wrong, where one is. */
export class RequestError extends SlipstreamError {
  readonly requestCode: RequestErrorCode;
  readonly parameter: string | undefined;

  constructor(
    code: RequestErrorCode,
    summary: string,
    details: ErrorDetails & { readonly parameter?: string } = {},
  ) {
    const { parameter, ...rest } = details;
    super(code, summary, rest);
    this.requestCode = code;
    this.parameter = parameter;
  }
}
