import fc from "fast-check";
import { expect, test } from "vitest";
import { type MovedObject, planTransfers, type TransferPlan } from "./transfers.ts";

const object = (bytes: number, touches: readonly (readonly [number, "r" | "w" | "rw"])[]): MovedObject => ({
  bytes,
  persists: true,
  touches: touches.map(([step, how]) => ({
    step,
    reads: how.includes("r"),
    writes: how.includes("w"),
  })),
});

const text = ({ sequence }: TransferPlan): string =>
  sequence
    .map((entry) => (typeof entry === "number" ? `${entry}` : `${entry.action}:${entry.stay.object}`))
    .join(" ");

test("reads go as far ahead as the window allows, in the order of use", () => {
  const objects = [0, 1, 2, 3].map((step) => object(10, [[step, "r"]]));
  expect(text(planTransfers(objects, 4, { window: 20, gap: 1 }))).toBe(
    "load:0 load:1 load_wait:0 0 load:2 load_wait:1 1 load:3 load_wait:2 2 load_wait:3 3",
  );
  expect(text(planTransfers(objects, 4, { window: 0, gap: 1 }))).toBe(
    "load:0 load_wait:0 0 load:1 load_wait:1 1 load:2 load_wait:2 2 load:3 load_wait:3 3",
  );
});

test("what was written is saved after its last touch and awaited when the window is full", () => {
  const objects = [0, 1, 2].map((step) => object(10, [[step, "w"]]));
  expect(text(planTransfers(objects, 3, { window: 10, gap: 1 }))).toBe(
    "0 save:0 1 save_wait:0 save:1 2 save_wait:1 save:2 save_wait:2",
  );
});

test("without a window for writes everything is on disk before the next step, while reads go ahead", () => {
  const objects = [0, 1, 2].map((step) => object(10, [[step, "rw"]]));
  expect(text(planTransfers(objects, 3, { window: 20, writeWindow: 0, gap: 1 }))).toBe(
    "load:0 load:1 load_wait:0 0 save:0 save_wait:0 load:2 load_wait:1 1 save:1 save_wait:1 load_wait:2 2 save:2 save_wait:2",
  );
  expect(text(planTransfers(objects, 3, { window: 0, writeWindow: 20, gap: 1 }))).toBe(
    "load:0 load_wait:0 0 save:0 load:1 load_wait:1 1 save:1 load:2 load_wait:2 2 save_wait:0 save:2 save_wait:1 save_wait:2",
  );
});

test("an object leaves between distant touches, and is read again only when it is written", () => {
  const objects = [
    object(10, [
      [0, "rw"],
      [9, "rw"],
    ]),
  ];
  const steps = "0 1 2 3 4 5 6 7 8";
  expect(text(planTransfers(objects, 10, { window: 100, gap: 9 }))).toBe(
    `load:0 load_wait:0 ${steps} 9 save:0 save_wait:0`,
  );
  expect(text(planTransfers(objects, 10, { window: 100, gap: 8 }))).toBe(
    `load:0 load_wait:0 0 save:0 save_wait:0 load:0 1 2 3 4 5 6 7 8 load_wait:0 9 save:0 save_wait:0`,
  );
});

test("any plan: what is touched is there, whole and current, and the windows hold", () => {
  const anyObject = fc
    .record({
      bytes: fc.integer({ min: 1, max: 50 }),
      persists: fc.boolean(),
      touches: fc.uniqueArray(fc.record({ step: fc.nat(29), reads: fc.boolean(), writes: fc.boolean() }), {
        selector: ({ step }) => step,
        minLength: 1,
        maxLength: 8,
      }),
    })
    .map(({ bytes, persists, touches }): MovedObject => {
      const sorted = touches
        .sort((a, b) => a.step - b.step)
        .map(({ step, reads, writes }, index) => ({
          step,
          reads: index === 0 && !persists ? false : reads || !writes,
          writes: index === 0 && !persists ? true : writes,
        }));
      return { bytes, persists, touches: sorted };
    });
  fc.assert(
    fc.property(
      fc.array(anyObject, { maxLength: 8 }),
      fc.nat(120),
      fc.integer({ min: 1, max: 30 }),
      (objects, window, gap) => {
        const plan = planTransfers(objects, 30, { window, gap });
        // The number of writes seen by memory and by the store, and what is under way.
        const versions = objects.map(() => 0);
        const inStore: number[] = objects.map(({ persists }) => (persists ? 0 : -1));
        const inMemory = objects.map(() => -1);
        const reading = new Set<number>();
        const writing = new Set<number>();
        plan.sequence.forEach((entry, place) => {
          if (typeof entry === "number") {
            objects.forEach(({ touches }, index) => {
              const touch = touches.find(({ step }) => step === entry);
              if (touch === undefined) return;
              const stay = plan.stays.find(
                (one) => one.object === index && one.from <= entry && entry <= one.to,
              );
              expect(stay!.first).toBeLessThanOrEqual(place);
              expect(stay!.last).toBeGreaterThanOrEqual(place);
              if (touch.reads) expect(inMemory[index]).toBe(versions[index]);
              if (touch.writes) inMemory[index] = ++versions[index]!;
            });
            return;
          }
          const { action, stay, number } = entry;
          const index = stay.object;
          expect(place >= stay.first && place <= stay.last).toBe(true);
          if (action === "load") {
            expect([...writing].some((other) => plan.stays[other]!.object === index)).toBe(false);
            reading.add(number);
          }
          if (action === "load_wait") {
            expect(reading.delete(number)).toBe(true);
            expect(inStore[index]).toBe(versions[index]);
            inMemory[index] = inStore[index]!;
          }
          if (action === "save") writing.add(number);
          if (action === "save_wait") {
            expect(writing.delete(number)).toBe(true);
            inStore[index] = versions[index]!;
          }
          for (const under of [reading, writing]) {
            const bytes = [...under].reduce(
              (sum, other) => sum + objects[plan.stays[other]!.object]!.bytes,
              0,
            );
            // What a single step needs may be more than the window.
            const needed = [...under].filter((other) => {
              const next = plan.sequence.slice(place).find((later) => typeof later === "number") ?? 30;
              return under === writing ? true : plan.stays[other]!.from > (next as number);
            });
            if (under === reading && needed.length > 0)
              expect(bytes).toBeLessThanOrEqual(Math.max(window, 0));
            if (under === writing && under.size > 1) expect(bytes).toBeLessThanOrEqual(window);
          }
        });
        expect(reading.size + writing.size).toBe(0);
        objects.forEach(({ persists }, index) => {
          if (persists) expect(inStore[index]).toBe(versions[index]);
        });
      },
    ),
    { numRuns: 500 },
  );
});
