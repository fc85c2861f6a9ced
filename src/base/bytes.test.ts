import { describe, expect, it } from "vitest";
import { formatBytes, parseBytes } from "./bytes.ts";

describe("parseBytes", () => {
  it.each([
    ["4GiB", 4_294_967_296],
    ["512 MiB", 536_870_912],
    ["1.5GB", 1_500_000_000],
    ["2kb", 2000],
    ["100", 100],
    [" 7 b ", 7],
    [123, 123],
    ["0.5KiB", 512],
  ])("reads %s", (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(["", "4 GiBs", "-1", "a lot", "1e9999", "99999999TiB", Number.NaN, -5])("refuses %j", (text) => {
    expect(() => parseBytes(text)).toThrow(/not a size in bytes[\s\S]*512MiB/);
  });
});

describe("formatBytes", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1536, "1.5 KiB"],
    [1024 ** 2 - 1, "1 MiB"],
    [4 * 1024 ** 3, "4 GiB"],
    [5000 * 1024 ** 4, "5000 TiB"],
  ])("writes %d as %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});
