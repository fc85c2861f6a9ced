/**
 * Server-sent events over one response. Everything that is sent before the event loop turns leaves in one write;
 * what a client does not read stays within a bound, and a client that reads nothing is cut off.
 */
import type { ServerResponse } from "node:http";

/** How much and how long a stream waits for its client. */
export interface EventStreamOptions {
  /** Bytes that may wait for the client before the stream asks its source to pause. */
  readonly highWater: number;
  /** Milliseconds that a full stream waits before it cuts the client off. */
  readonly stallMilliseconds: number;
}

/** Headers of an event stream: uncached, and not gathered up by proxies. */
export const eventStreamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
} as const;

/** The events of one response, in the order in which they were sent. */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #options: EventStreamOptions;
  #pending = "";
  #scheduled = false;
  #room: Promise<boolean> | undefined;

  /** Sends the headers at once. */
  constructor(response: ServerResponse, options: EventStreamOptions) {
    this.#response = response;
    this.#options = options;
    response.writeHead(200, eventStreamHeaders);
    response.flushHeaders();
  }

  /** Sends one event, whose data is a line of JSON. */
  send(data: string): void {
    this.#pending += `data: ${data}\n\n`;
    if (this.#scheduled) return;
    this.#scheduled = true;
    // After every answer that the step woke has said its part.
    process.nextTick(() => this.#flush());
  }

  /** Whether the source should wait for `room()` before it sends more. */
  get full(): boolean {
    return this.#response.writableLength + this.#pending.length > this.#options.highWater;
  }

  /** Waits until there is room: false where the client went away or read nothing for too long, and was cut off. */
  room(): Promise<boolean> {
    if (this.#response.destroyed) return Promise.resolve(false);
    this.#flush();
    if (!this.#response.writableNeedDrain) return Promise.resolve(true);
    this.#room ??= this.#awaitDrain().finally(() => {
      this.#room = undefined;
    });
    return this.#room;
  }

  /** Sends the last event and ends the response. */
  end(data?: string): void {
    if (data !== undefined) this.send(data);
    this.#flush();
    this.#response.end();
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    if (!this.#response.destroyed) this.#response.write(text);
  }

  #awaitDrain(): Promise<boolean> {
    const response = this.#response;
    return new Promise((resolve) => {
      const settle = (room: boolean) => (): void => {
        clearTimeout(timer);
        response.off("drain", drained).off("close", closed);
        if (!room) response.destroy();
        resolve(room);
      };
      const drained = settle(true);
      const closed = settle(false);
      const timer = setTimeout(closed, this.#options.stallMilliseconds);
      response.on("drain", drained).on("close", closed);
    });
  }
}
