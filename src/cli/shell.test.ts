import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { shellCommand } from "./shell.ts";

test("plain words stay as they are", () => {
  expect(shellCommand(["train", "configs/a-1.yaml", "--set", "seed=3"])).toBe(
    "train configs/a-1.yaml --set seed=3",
  );
});

test("a shell reads the words back", () => {
  const words = ["a b", "it's", "", "$HOME", "[x, 'y']", "*", "`id`", 'say "no"', "back\\slash", "#", "~"];
  const script = `printf '%s\\0' ${shellCommand(words)}`;
  expect(execFileSync("sh", ["-c", script], { encoding: "utf8" }).split("\0").slice(0, -1)).toEqual(words);
});
