import { Argument, Command, InvalidArgumentError } from "commander";
import { ConfigError } from "../../base/errors.ts";
import { nearest } from "../../base/suggest.ts";
import { helpEnding } from "../help.ts";
import { addTraceOption, integerFrom, numberFrom } from "../options.ts";

/** A group of benchmarks that is run by its name. */
export interface BenchSuite {
  readonly name: string;
  /** What it measures, in a few words. */
  readonly summary: string;
}

/** How `slipstream bench serve` loads a server that runs already. */
export interface LoadCommandOptions {
  /** Where the server is, without `/v1`. */
  readonly url: string;
  /** The `model` of its requests. */
  readonly model: string;
  readonly apiKey?: string;
  /** Requests a second on average. */
  readonly rate: number;
  readonly requests: number;
  /** Recorded lengths: JSON lines. */
  readonly lengths?: string;
  readonly vocabulary: number;
  readonly seed: number;
  /** Seconds to the first token, and a token after it, within which a request counts as served well. */
  readonly targetFirst: number;
  readonly targetToken: number;
}

/** What `slipstream bench` was asked. */
export interface BenchCommandOptions {
  readonly suite: string;
  /** A server to load instead of measuring our own. */
  readonly server?: LoadCommandOptions;
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
    .option("--json <FILE>", "write every measurement to FILE too")
    .optionsGroup("Load of a running server (serve):")
    .option("--url <URL>", "load this OpenAI-compatible server instead of measuring our own")
    .option("--model <NAME>", "the `model` of its requests", "default")
    .option("--api-key <KEY>", "its API key")
    .option("--rate <R>", "requests a second, at Poisson times", numberFrom(0, 1e6, { above: true }), 2)
    .option("--requests <N>", "how many requests", integerFrom(1, 1e6), 100)
    .option("--lengths <FILE>", 'recorded lengths, a line each: {"prompt": 300, "output": 70}')
    .option("--vocabulary <N>", "prompts are random ids below N", integerFrom(1, 1e7), 32_000)
    .option("--seed <N>", "seed of times, lengths and prompts", integerFrom(0, 2 ** 32 - 1), 1)
    .option(
      "--target-first <S>",
      "seconds to the first token of a well-served request",
      numberFrom(0, 1e6),
      2,
    )
    .option("--target-token <S>", "seconds a token after it", numberFrom(0, 1e6), 0.2);
  return addTraceOption(command)
    .addHelpText("after", ["\nSuites:", ...list].join("\n"))
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          [`slipstream bench ${names[0]}`, "print a table"],
          [`slipstream bench ${names[0]} --json results.json`, "keep the numbers"],
          ["slipstream bench serve --url http://127.0.0.1:8000 --rate 4", "load a server that is running"],
        ],
        next: "docs/benchmarks.md, bench/peers/README.md (installing the peers)",
      }),
    )
    .action(async (suite: string, flat: FlatOptions) => {
      const { json, trace, ...load } = flat;
      await run({
        suite,
        ...(json === undefined ? {} : { json }),
        ...(trace === undefined ? {} : { trace }),
        ...(load.url === undefined ? refuseLoadOptions(command) : serverOptions(suite, load.url, load)),
      });
    });
}

type FlatOptions = Pick<BenchCommandOptions, "json" | "trace"> &
  Omit<LoadCommandOptions, "url"> & { readonly url?: string };

function serverOptions(
  suite: string,
  url: string,
  load: Omit<LoadCommandOptions, "url">,
): { server: LoadCommandOptions } {
  if (suite !== "serve") {
    throw new ConfigError("bad_suite", "only the suite serve loads a running server", {
      where: `slipstream bench ${suite} --url ${url}`,
      expected: "slipstream bench serve --url URL",
    });
  }
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed?.protocol !== "http:" || parsed.search !== "") {
    throw new ConfigError("bad_url", "the server's address cannot be used", {
      where: `--url ${url}`,
      expected: "an address such as http://127.0.0.1:8000",
    });
  }
  // Both `http://host:8000` and `http://host:8000/v1/` are what people have at hand.
  return { server: { ...load, url: url.replace(/\/+$/, "").replace(/\/v1$/, "") } };
}

/** Options of the load mean nothing without a server. */
function refuseLoadOptions(command: Command): Record<string, never> {
  const load = [
    "model",
    "apiKey",
    "rate",
    "requests",
    "lengths",
    "vocabulary",
    "seed",
    "targetFirst",
    "targetToken",
  ];
  const given = load.find((name) => command.getOptionValueSource(name) === "cli");
  if (given === undefined) return {};
  const flag = `--${given.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  throw new ConfigError("missing_option", `${flag} is for loading a running server`, {
    expected: "--url URL beside it",
  });
}
