import { expect, test } from "vitest";
import { RunError } from "../../base/errors.ts";
import { RequestError } from "../engine/errors.ts";
import { ApiError, clip, toApiError } from "./errors.ts";

test.each([
  ["ascii", "a"],
  ["bytes that JSON escapes", "\u0001"],
  ["three bytes a character", "語"],
  ["four bytes a character", "😀"],
  ["quotes", '"'],
])("an error repeats no more than 1 kB: %s", (_, character) => {
  const error = new ApiError(400, character.repeat(100_000), {
    parameter: character.repeat(100_000),
    code: "invalid_value",
  });
  const body = error.body();
  expect(Buffer.byteLength(body)).toBeLessThanOrEqual(1024);
  const { message, param } = JSON.parse(body).error;
  expect(message.isWellFormed() && param.isWellFormed()).toBe(true);
  expect(message.endsWith("…")).toBe(true);
  expect(message.length).toBeGreaterThan(50);
});

test("clip never cuts a character in two", () => {
  expect(clip("ab😀cd", 4)).toBe("ab…");
  expect(clip("ab😀cd", 5)).toBe("ab😀…");
  expect(clip("ab", 2)).toBe("ab");
});

test.each([
  [new RequestError("queue_full", "full"), 503, "queue_full", { "retry-after": "1" }],
  [new RequestError("not_ready", "later"), 503, "not_ready", { "retry-after": "1" }],
  [
    new RequestError("context_length_exceeded", "long", { parameter: "maxTokens" }),
    400,
    "context_length_exceeded",
    {},
  ],
  [new RequestError("invalid_request", "bad", { parameter: "topK" }), 400, "invalid_request", {}],
])("what the engine refuses: %s", (refusal, status, code, headers) => {
  const error = toApiError(refusal);
  expect(error).toMatchObject({ status, code, headers, message: refusal.message });
});

test("names of fields are those of HTTP", () => {
  const refusal = new RequestError("invalid_request", "bad", { parameter: "repetitionPenalty" });
  expect(toApiError(refusal).parameter).toBe("repetition_penalty");
});

test("what nobody foresaw tells nothing of the inside, and what was foreseen tells what it says", () => {
  const error = toApiError(new TypeError("cannot read properties of undefined (reading 'secret')"));
  expect(error).toMatchObject({ status: 500, code: "internal_error", type: "server_error" });
  expect(error.body()).not.toContain("secret");
  expect(toApiError("text").status).toBe(500);
  expect(toApiError(new RunError("disk_full", "the disk is full"))).toMatchObject({
    status: 500,
    message: "the disk is full",
  });
});
