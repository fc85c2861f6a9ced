import { expect, test } from "vitest";
import { startServer } from "../../../test/support/http_server.ts";

test("an embedding has OpenAI's shape", async () => {
  const { post } = await startServer();
  const body = await (await post("/v1/embeddings", { model: "fake", input: "ab" })).json();
  expect(body).toEqual({
    object: "list",
    data: [{ object: "embedding", index: 0, embedding: [3, 256, 0.5, -1.25] }],
    model: "fake",
    usage: { prompt_tokens: 3, total_tokens: 3 },
  });
});

test("base64 holds little-endian float32", async () => {
  const { post } = await startServer();
  const body = await (await post("/v1/embeddings", { input: [[7, 8]], encoding_format: "base64" })).json();
  // 2, 7, 0.5 and -1.25 as IEEE 754 singles.
  expect(Buffer.from(String(body.data[0]!.embedding), "base64").toString("hex")).toBe(
    "000000400000e0400000003f0000a0bf",
  );
});

test("several inputs, texts or tokens", async () => {
  const { post } = await startServer();
  const texts = await (await post("/v1/embeddings", { input: ["a", "bcd"] })).json();
  expect(texts.data.map((item: { embedding: number[] }) => item.embedding[0])).toEqual([2, 4]);
  expect(texts.usage.prompt_tokens).toBe(6);
  const ids = await (await post("/v1/embeddings", { input: [5, 6, 7] })).json();
  expect(ids.data.map((item: { embedding: number[] }) => item.embedding)).toEqual([[3, 5, 0.5, -1.25]]);
});

test.each([
  [{ input: [] }, "input", "invalid_value"],
  [{ input: [[1], [999]] }, "input[1][0]", "invalid_value"],
  [{ input: 5 }, "input", "invalid_value"],
  [{}, "input", "missing_required_parameter"],
  [{ input: new Array(2049).fill("a") }, "input", "invalid_value"],
  [{ input: "a".repeat(1024) }, "input", "context_length_exceeded"],
  [{ input: "a", dimensions: 2 }, "dimensions", "unsupported_parameter"],
  [{ input: "a", encoding_format: "hex" }, "encoding_format", "invalid_value"],
])("%j is refused", async (body, param, code) => {
  const { post } = await startServer();
  const response = await post("/v1/embeddings", body);
  expect(response.status).toBe(400);
  expect((await response.json()).error).toMatchObject({ param, code });
});
