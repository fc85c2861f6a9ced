import { afterEach, expect, test, vi } from "vitest";
import { collectReport } from "./collect.ts";
import { findFirstTool, findTool } from "./tools.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

test("a tool is found with its version, and an absent one is not", async () => {
  const node = await findTool(process.execPath);
  expect(node?.version).toBe(process.version);
  expect(await findTool("no-such-command-of-slipstream")).toBeUndefined();
  const first = await findFirstTool(["no-such-command-of-slipstream", process.execPath]);
  expect(first?.command).toBe(process.execPath);
});

test("variables are reported, and bad ones are problems", async () => {
  vi.stubEnv("SLIPSTREAM_THREADS", "3");
  const good = await collectReport();
  expect(good.threads).toEqual({ count: 3, why: "SLIPSTREAM_THREADS asks for it" });
  expect(good.environment).toMatchObject({ SLIPSTREAM_THREADS: "3" });
  expect(good.node).toEqual({ version: process.versions.node, path: process.execPath });
  expect(good.machine.memoryAvailable).toBeLessThanOrEqual(good.machine.memory);

  vi.stubEnv("SLIPSTREAM_THREADS", "many");
  vi.stubEnv("SLIPSTREAM_CXX", "no-such-compiler-of-slipstream");
  const bad = await collectReport();
  expect(bad.compiler).toBeNull();
  expect(bad.problems.join("\n")).toContain("SLIPSTREAM_THREADS has a value that cannot be used");
  expect(bad.problems.join("\n")).toContain("no-such-compiler-of-slipstream does not run");
});

test("a secret is told to be there, and not told", async () => {
  vi.stubEnv("SLIPSTREAM_API_KEY", "sk-hidden");
  const { environment } = await collectReport();
  expect(environment.SLIPSTREAM_API_KEY).toBe("(set; a secret)");
});
