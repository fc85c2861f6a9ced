import { expect, test } from "vitest";
import { InternalError } from "../../base/errors.ts";
import { blockKey, rootKey } from "./block_keys.ts";
import { BlockPool } from "./block_pool.ts";

test("takes blocks without contents first, then the longest unused", () => {
  const pool = new BlockPool(4);
  expect([pool.take(), pool.take(), pool.take()]).toEqual([0, 1, 2]);
  pool.publish(0, "a");
  pool.publish(1, "b");
  pool.release(1);
  pool.release(0);
  pool.release(2);
  expect(pool.free).toBe(4);
  // 2 and 3 hold nothing known; 1 was released before 0.
  expect(new Set([pool.take(), pool.take()])).toEqual(new Set([2, 3]));
  expect(pool.find("b")).toBe(1);
  expect(pool.take()).toBe(1);
  expect(pool.find("b")).toBeUndefined();
  expect(pool.find("a")).toBe(0);
  expect(pool.take()).toBe(0);
  expect(() => pool.take()).toThrow("internal: a block is taken from a pool without free blocks");
});

test("a cached block that is held again is not taken", () => {
  const pool = new BlockPool(2);
  const block = pool.take();
  pool.publish(block, "a");
  pool.release(block);
  pool.hold(block);
  expect(pool.free).toBe(1);
  expect(pool.take()).not.toBe(block);
  pool.check(new Int32Array([1, 1]));
});

test("keeps the first of two blocks with equal contents, and names none after forgetAll", () => {
  const pool = new BlockPool(2);
  const [first, second] = [pool.take(), pool.take()];
  pool.publish(first, "a");
  pool.publish(second, "a");
  expect(pool.find("a")).toBe(first);
  expect(pool.keyOf(second)).toBeUndefined();
  pool.forgetAll();
  expect(pool.find("a")).toBeUndefined();
  pool.check(new Int32Array([1, 1]));
});

test("check names the block whose holders were miscounted", () => {
  const pool = new BlockPool(3);
  pool.take();
  pool.take();
  expect(() => pool.check(new Int32Array([1, 2, 0]))).toThrow(InternalError);
  expect(() => pool.check(new Int32Array([1, 2, 0]))).toThrow("block 1 has 2 holders, 1 were counted");
  pool.release(1);
  expect(() => pool.release(1)).toThrow("block 1 is released though nobody holds it");
});

test("keys tell apart tokens, parents and salts, lone surrogates too", () => {
  const keys = [
    blockKey(rootKey(undefined), [1, 2, 3], 0, 2),
    blockKey(rootKey(undefined), [1, 2, 3], 1, 3),
    blockKey(rootKey(undefined), [12, 3], 0, 2),
    blockKey(rootKey(undefined), [1, 23], 0, 2),
    blockKey(rootKey(""), [1, 2, 3], 0, 2),
    blockKey(rootKey("\ud800"), [1, 2, 3], 0, 2),
    blockKey(rootKey("\ud801"), [1, 2, 3], 0, 2),
    blockKey(blockKey(rootKey(undefined), [1, 2, 3], 0, 2), [1, 2, 3], 0, 2),
  ];
  expect(new Set(keys).size).toBe(keys.length);
  expect(blockKey(rootKey("s"), [9, 1, 2], 1, 3)).toBe(blockKey(rootKey("s"), [1, 2], 0, 2));
});
