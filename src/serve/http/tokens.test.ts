import { expect, test } from "vitest";
import { startServer } from "../../../test/support/http_server.ts";

test("text to tokens and back, as vLLM does", async () => {
  const { post } = await startServer();
  expect(await (await post("/tokenize", { model: "fake", prompt: "Hé" })).json()).toEqual({
    count: 4,
    max_model_len: 1024,
    tokens: [256, 72, 195, 169],
    token_strs: null,
  });
  const plain = { prompt: "Hi", add_special_tokens: false, return_token_strs: true };
  expect(await (await post("/tokenize", plain)).json()).toMatchObject({
    count: 2,
    tokens: [72, 105],
    token_strs: ["H", "i"],
  });
  const back = await (await post("/detokenize", { tokens: [256, 72, 195, 169] })).json();
  expect(back).toEqual({ prompt: "<s>Hé" });
});

test.each([
  ["/tokenize", {}, 400, null],
  ["/tokenize", { prompt: "a", messages: [] }, 400, null],
  ["/tokenize", { prompt: 5 }, 400, "prompt"],
  ["/tokenize", { messages: [{ role: "user" }] }, 400, "messages[0].content"],
  ["/tokenize", { prompt: "a", model: "other" }, 404, "model"],
  ["/detokenize", {}, 400, "tokens"],
  ["/detokenize", { tokens: [1, 258] }, 400, "tokens[1]"],
  ["/detokenize", { tokens: [-1] }, 400, "tokens[0]"],
  ["/detokenize", { tokens: new Array(5000).fill(1) }, 400, "tokens"],
])("%s of %j is refused", async (path, body, status, param) => {
  const { post } = await startServer();
  const response = await post(path, body);
  expect(response.status).toBe(status);
  expect((await response.json()).error.param).toBe(param);
});
