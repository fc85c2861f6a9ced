import { Argument, Command, InvalidArgumentError } from "commander";
import { nearest } from "../../base/suggest.ts";
import { helpEnding } from "../help.ts";
import { addTraceOption } from "../options.ts";

/** A group of benchmarks that is run by its name. */
export interface BenchSuite {
  readonly name: string;
  /** What it measures, in a few words. */
  readonly summary: string;
}

/** What `slipstream bench` was asked. */
export interface BenchCommandOptions {
  readonly suite: string;
  /** Where to write the measurements, if anywhere. */
  readonly json?: string;
  readonly trace?: string;
}

/** `slipstream bench` for these suites, calling `run` with its checked options. */
export function defineBench(
  suites: readonly BenchSuite[],
  run: (options: BenchCommandOptions) => Promise<void>,
): Command {
  const names = suites.map((suite) => suite.name);
  const parseSuite = (text: string): string => {
    if (names.includes(text)) return text;
    const suggestion = nearest(text, names);
    const hint = suggestion === undefined ? "" : ` Did you mean ${suggestion}?`;
    throw new InvalidArgumentError(`Expected one of ${names.join(", ")}.${hint}`);
  };
  const width = Math.max(...names.map((name) => name.length));
  const list = suites.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  const command = new Command("bench")
    .description(
      "Measure a part of Slipstream and its peers in the same run. Results are checked before they are " +
        "timed; a peer that is not installed is reported, with how to install it.",
    )
    .addArgument(new Argument("<SUITE>", "what to measure: see Suites").argParser(parseSuite))
    .option("--json <FILE>", "write every measurement to FILE too");
  return addTraceOption(command)
    .addHelpText("after", ["\nSuites:", ...list].join("\n"))
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          [`slipstream bench ${names[0]}`, "print a table"],
          [`slipstream bench ${names[0]} --json results.json`, "keep the numbers"],
        ],
        next: "docs/benchmarks.md, bench/peers/README.md (installing the peers)",
      }),
    )
    .action(async (suite: string, options: Omit<BenchCommandOptions, "suite">) => {
      await run({ ...options, suite });
    });
}
