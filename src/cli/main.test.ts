import { Command } from "commander";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ConfigError, InternalError, RunError } from "../base/errors.ts";
import { main } from "./main.ts";
import type { RegisteredCommand } from "./registry.ts";

let output = "";
let errors = "";

beforeEach(() => {
  output = "";
  errors = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    output += String(text);
    return true;
  });
  vi.spyOn(console, "error").mockImplementation((text) => {
    errors += `${String(text)}\n`;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

const loaded: string[] = [];

function register(name: string, action: () => Promise<void> = async () => {}): RegisteredCommand {
  return {
    name,
    summary: `what ${name} is for`,
    load: async () => {
      loaded.push(name);
      return new Command(name).option("--temperature <T>", "how random").action(action);
    },
  };
}

/** The exit status of `slipstream` with these arguments. */
async function statusOf(parameters: string[], commands: RegisteredCommand[]): Promise<number> {
  const before = process.exitCode;
  process.exitCode = 0;
  await main(parameters, commands);
  const status = Number(process.exitCode);
  process.exitCode = before;
  return status;
}

test("help lists every command and loads none", async () => {
  loaded.length = 0;
  for (const parameters of [["--help"], ["-h"], [], ["help"]]) {
    output = "";
    expect(await statusOf(parameters, [register("train"), register("bench")])).toBe(0);
    expect(output).toContain("what train is for");
    expect(output).toContain("what bench is for");
  }
  expect(loaded).toEqual([]);
});

test("the help of one command loads that one", async () => {
  for (const parameters of [
    ["bench", "--help"],
    ["help", "bench"],
  ]) {
    loaded.length = 0;
    output = "";
    expect(await statusOf(parameters, [register("train"), register("bench")])).toBe(0);
    expect(output).toContain("Usage: slipstream bench [options]");
    expect(output).toContain("how random");
    expect(loaded).toEqual(["bench"]);
  }
});

test("the version is that of package.json", async () => {
  expect(await statusOf(["--version"], [])).toBe(0);
  expect(output).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("a misspelt command is refused with the nearest one", async () => {
  expect(await statusOf(["trian"], [register("train"), register("bench")])).toBe(2);
  expect(errors).toContain('slipstream has no command "trian"');
  expect(errors).toContain("did you mean `slipstream train`?");
  errors = "";
  expect(await statusOf(["qwertyuiop"], [register("train"), register("bench")])).toBe(2);
  expect(errors).toContain("expected: train, bench");
});

test("a misspelt flag is refused with the nearest one", async () => {
  expect(await statusOf(["train", "--temprature", "1"], [register("train")])).toBe(2);
  expect(errors).toContain("slipstream train: unknown option '--temprature'");
  expect(errors).toContain("--temperature");
  expect(errors).toContain("see `slipstream train --help`");
});

test("too many arguments are refused", async () => {
  expect(await statusOf(["train", "surplus"], [register("train")])).toBe(2);
  expect(errors).toContain("too many arguments");
});

const failing = (error: unknown) => [
  register("train", async () => {
    throw error;
  }),
];

test.each([
  [new ConfigError("bad_value", "the batch does not multiply out"), 2],
  [new RunError("disk_full", "the disk is full"), 1],
])("%s ends with status %i, its message and no stack", async (error, status) => {
  expect(await statusOf(["train"], failing(error))).toBe(status);
  expect(errors).toBe(`${error.message}\n`);
});

test.each([[new TypeError("x is not a function")], [new InternalError("x is not a function")]])(
  "an internal fault says so, and shows its stack on demand",
  async (error) => {
    expect(await statusOf(["train"], failing(error))).toBe(1);
    expect(errors).toContain("internal: x is not a function");
    expect(errors).toContain("SLIPSTREAM_DEBUG=1");
    expect(errors).not.toContain("main.test.ts");
    errors = "";
    vi.stubEnv("SLIPSTREAM_DEBUG", "1");
    expect(await statusOf(["train"], failing(error))).toBe(1);
    expect(errors).toContain("main.test.ts");
  },
);

test("a file that cannot be opened is named, without blaming Slipstream", async () => {
  const { readFileSync } = await import("node:fs");
  const commands = [
    register("train", async () => {
      readFileSync("/nowhere/at/all.json");
    }),
  ];
  expect(await statusOf(["train"], commands)).toBe(1);
  expect(errors).toContain("slipstream train: ENOENT");
  expect(errors).toContain("/nowhere/at/all.json");
  expect(errors).not.toContain("internal");
});
