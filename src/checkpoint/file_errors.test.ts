import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RunError } from "../base/errors.ts";
import { asWriteError } from "./file_errors.ts";

describe("what the system refuses says what to do:", () => {
  const refusal = (code: string) => Object.assign(new Error(`${code}: refused`), { code, syscall: "write" });

  test.each([
    ["ENOSPC", "disk_full", /disk is full[\s\S]*expected: 2 KiB of free space[\s\S]*free some space/],
    ["EDQUOT", "disk_full", /disk is full/],
    ["EACCES", "not_writable", /cannot be written[\s\S]*the right to write there/],
    ["EROFS", "not_writable", /choose another folder/],
    ["EFBIG", "file_too_large", /expected: room for a file of 2 KiB[\s\S]*smaller shards/],
    ["EIO", "write_failed", /could not be written[\s\S]*received: EIO: refused/],
  ])("%s", (code, expected, message) => {
    const error = asWriteError(refusal(code), "out/model", 2000) as RunError;
    expect(error).toBeInstanceOf(RunError);
    expect(error.code).toBe(expected);
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/where: +out\/model[\s\S]*everything saved earlier is intact$/);
  });

  test("and any other error is passed on as it is", async () => {
    const other = new TypeError("of the caller");
    expect(asWriteError(other, "x")).toBe(other);
    const real: unknown = await open(join(import.meta.dirname, "absent/file"), "wx").catch(
      (error: unknown) => error,
    );
    expect((asWriteError(real, "x") as RunError).message).toContain("received: ENOENT");
  });
});
