import { ClientGone } from "./answers.ts";
import { toApiError } from "./errors.ts";
import type { EventStream } from "./event_stream.ts";
import type { Exchange } from "./exchange.ts";

/** Ends a stream that failed after it was opened: an event that holds the error, and no `[DONE]`. */
export function failStream(events: EventStream, error: unknown, exchange: Exchange): void {
  if (error instanceof ClientGone) {
    exchange.response.destroy();
    return;
  }
  const answer = toApiError(error);
  exchange.log.warning("stream failed", {
    request_id: exchange.id,
    status: answer.status,
    code: answer.code,
    detail: error instanceof Error ? error.message : String(error),
  });
  events.end(answer.body());
}
