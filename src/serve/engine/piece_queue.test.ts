import { expect, test } from "vitest";
import { PieceQueue } from "./piece_queue.ts";
import type { Piece } from "./types.ts";

const piece = (index: number, text: string, rest: Partial<Piece> = {}): Piece => ({
  index,
  text,
  tokens: [text.length],
  ...rest,
});

test("a consumer that keeps up gets each piece; one that does not gets them joined, an answer each", async () => {
  const queue = new PieceQueue(() => {});
  const waiting = queue.next();
  queue.push(piece(0, "a"));
  expect(await waiting).toEqual({ done: false, value: piece(0, "a") });
  const logprob = { token: 1, text: "x", bytes: [120], logprob: -1, top: [] };
  queue.push(piece(0, "b", { logprobs: [logprob] }));
  queue.push(piece(1, "cc"));
  queue.push(piece(0, "ddd", { logprobs: [logprob], finishReason: "stop", stopReason: "#" }));
  queue.close();
  queue.push(piece(0, "too late"));
  expect(await queue.next()).toEqual({
    done: false,
    value: {
      index: 0,
      text: "bddd",
      tokens: [1, 3],
      logprobs: [logprob, logprob],
      finishReason: "stop",
      stopReason: "#",
    },
  });
  expect(await queue.next()).toEqual({ done: false, value: piece(1, "cc") });
  expect(await queue.next()).toEqual({ done: true, value: undefined });
});

test("several calls that wait are served in order, and all end at the end", async () => {
  const queue = new PieceQueue(() => {});
  const calls = Promise.all([queue.next(), queue.next(), queue.next()]);
  queue.push(piece(0, "a"));
  queue.push(piece(0, "b"));
  queue.close();
  expect((await calls).map(({ value }) => value?.text)).toEqual(["a", "b", undefined]);
});

test("a consumer that stops early is heard once, one that stops after the end is not", async () => {
  let returns = 0;
  const early = new PieceQueue(() => returns++);
  early.push(piece(0, "a"));
  await early.return();
  await early.return();
  expect(returns).toBe(1);
  expect(await early.next()).toEqual({ done: true, value: undefined });
  const late = new PieceQueue(() => returns++);
  late.close();
  await late.return();
  expect(returns).toBe(1);
});
