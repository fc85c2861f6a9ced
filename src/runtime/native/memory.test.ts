import { expect, test } from "vitest";
import { createNativeBackend } from "./backend.ts";
import { askForMemory } from "./memory.ts";

test("memory that no machine has is refused with its size", () => {
  const backend = createNativeBackend();
  expect(() => backend.allocate("f32", 2 ** 44)).toThrow(
    [
      "the system does not give as much memory as is needed",
      "  received: 64 TiB for a tensor of 17592186044416 f32 elements",
      "  to do:    use a smaller model, batch or sequence, or a machine with more memory",
    ].join("\n"),
  );
  expect(() => backend.allocate("f32", 2 ** 51)).toThrow("8192 TiB for a tensor");
});

test("other faults stay what they are", () => {
  const fault = new Error("expected a program");
  expect(() =>
    askForMemory("a tensor", 8, () => {
      throw fault;
    }),
  ).toThrow(fault);
});
