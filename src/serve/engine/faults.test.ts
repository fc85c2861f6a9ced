import { afterEach, expect, test, vi } from "vitest";
import { readTestSwitches } from "./faults.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

test("every switch is off unless the environment says otherwise", () => {
  expect(readTestSwitches()).toEqual({ forcePreemption: 0, stepDelay: 0, failStep: 0, check: false });
  vi.stubEnv("SLIPSTREAM_SERVE_FORCE_PREEMPTION", "3");
  vi.stubEnv("SLIPSTREAM_SERVE_STEP_DELAY", "10");
  vi.stubEnv("SLIPSTREAM_SERVE_FAIL_STEP", "7");
  vi.stubEnv("SLIPSTREAM_SERVE_CHECK", "1");
  expect(readTestSwitches()).toEqual({ forcePreemption: 3, stepDelay: 10, failStep: 7, check: true });
});

test.each([
  ["SLIPSTREAM_SERVE_FORCE_PREEMPTION", "0"],
  ["SLIPSTREAM_SERVE_STEP_DELAY", "soon"],
  ["SLIPSTREAM_SERVE_FAIL_STEP", "-1"],
  ["SLIPSTREAM_SERVE_CHECK", "2"],
])("%s=%s is refused by name", (name, value) => {
  vi.stubEnv(name, value);
  expect(readTestSwitches).toThrow(new RegExp(`${name} has a value that cannot be used[\\s\\S]*"${value}"`));
});
