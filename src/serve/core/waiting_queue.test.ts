import { expect, test } from "vitest";
import { Sequence } from "./sequence.ts";
import { type Attempt, WaitingQueue } from "./waiting_queue.ts";

let arrivals = 0;
/** A sequence whose request's id is its name. */
function sequence(name: string, tenant: string, priority = 0): Sequence {
  const arrival = arrivals++;
  const request = {
    id: name,
    arrival,
    priority,
    tenant,
    promptLength: 1,
    maximumLength: 2,
    rootKey: "root",
    sequences: new Set<Sequence>(),
    cachedTokens: undefined,
  };
  return new Sequence(arrival, request, 0, [1]);
}

/** Starts until `room` have started, deferring those named; gives the names in the order of starting. */
function started(queue: WaitingQueue, room: number, deferred: readonly string[] = []): string[] {
  const names: string[] = [];
  queue.startEach(({ request }): Attempt => {
    if (deferred.includes(request.id)) return "deferred";
    if (names.length === room) return "refused";
    names.push(request.id);
    return "started";
  });
  return names;
}

test("tenants take turns; within one, first come first served", () => {
  const queue = new WaitingQueue();
  for (const [name, tenant] of [
    ["a1", "a"],
    ["a2", "a"],
    ["a3", "a"],
    ["b1", "b"],
    ["c1", "c"],
    ["b2", "b"],
  ] as const) {
    queue.add(sequence(name, tenant));
  }
  expect(queue.size).toBe(6);
  expect(started(queue, 2)).toEqual(["a1", "b1"]);
  // The turn goes on where it stopped.
  expect(started(queue, 9)).toEqual(["c1", "a2", "b2", "a3"]);
  expect(queue.size).toBe(0);
  expect([...queue]).toEqual([]);
});

test("smaller priorities go first, and those who ran before go first among their own", () => {
  const queue = new WaitingQueue();
  const again = sequence("again", "a", 1);
  queue.add(sequence("low", "a", 5));
  queue.add(sequence("middle", "a", 1));
  queue.add(sequence("high", "b", -3));
  queue.putBack(again);
  expect([...queue].map(({ request }) => request.id)).toEqual(["high", "again", "middle", "low"]);
  expect(started(queue, 9)).toEqual(["high", "again", "middle", "low"]);
});

test("a deferred sequence holds up nobody; a refused one all behind it", () => {
  const queue = new WaitingQueue();
  const again = sequence("again", "a");
  for (const [name, tenant] of [
    ["a1", "a"],
    ["a2", "a"],
    ["b1", "b"],
  ] as const)
    queue.add(sequence(name, tenant));
  queue.add(sequence("low", "a", 1));
  queue.putBack(again);
  expect(started(queue, 2, ["again", "a1"])).toEqual(["a2", "b1"]);
  expect(started(queue, 9, ["again", "a1"])).toEqual(["low"]);
  queue.add(sequence("b2", "b"));
  expect(started(queue, 0)).toEqual([]);
  let asked = 0;
  queue.startEach(() => {
    asked++;
    return "refused";
  });
  expect(asked).toBe(1);
  expect(started(queue, 9)).toEqual(["again", "a1", "b2"]);
});

test("removes from anywhere", () => {
  const queue = new WaitingQueue();
  const all = [sequence("a1", "a"), sequence("a2", "a"), sequence("b1", "b")];
  const again = sequence("again", "c");
  for (const each of all) queue.add(each);
  queue.putBack(again);
  queue.remove(all[1]!);
  queue.remove(again);
  expect(started(queue, 1)).toEqual(["a1"]);
  queue.remove(all[2]!);
  expect(queue.size).toBe(0);
  expect([...queue]).toEqual([]);
});
