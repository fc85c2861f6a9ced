/**
 * The command line: `slipstream COMMAND ...`. Commands are loaded when they run, so that `--help` is quick.
 * Exit status: 0 done, 1 failed while running, 2 wrong usage or config.
 */
import { Command } from "commander";
import { ConfigError } from "../base/errors.ts";
import { nearest } from "../base/suggest.ts";
import { describeFailure } from "./failure.ts";
import { helpEnding } from "./help.ts";
import { type RegisteredCommand, registeredCommands } from "./registry.ts";
import { packageVersion } from "./version.ts";

function defineProgram(commands: readonly RegisteredCommand[]): Command {
  const program = new Command("slipstream");
  program
    .description("Train and run large neural networks from TypeScript, on native CPU kernels.")
    .usage("COMMAND [arguments] [options]")
    .version(packageVersion(), "-v, --version", "print the version")
    .helpOption("-h, --help", "print this help; `slipstream COMMAND --help` explains a command")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText(
      "after",
      helpEnding({
        examples: [["slipstream doctor", "what this machine can do"]],
        next: "README.md, docs/architecture.md",
      }),
    );
  for (const { name, summary } of commands) program.command(name).description(summary);
  return program;
}

/** The command that the arguments name, or undefined for options of `slipstream` itself. */
function chooseCommand(
  parameters: readonly string[],
  commands: readonly RegisteredCommand[],
): RegisteredCommand | undefined {
  const name = parameters[0];
  if (name === undefined || name.startsWith("-")) return undefined;
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  const names = commands.map((command) => command.name);
  const suggestion = nearest(name, names);
  throw new ConfigError("unknown_command", `slipstream has no command "${name}"`, {
    expected: names.join(", "),
    hint: suggestion === undefined ? "see `slipstream --help`" : `did you mean \`slipstream ${suggestion}\`?`,
  });
}

/** Runs the command that the arguments ask for. @throws what the command throws. */
async function runCommand(
  parameters: readonly string[],
  commands: readonly RegisteredCommand[],
): Promise<void> {
  const chosen = chooseCommand(parameters, commands);
  if (chosen === undefined) {
    const program = defineProgram(commands);
    // No arguments at all: the help, as the answer.
    await program.parseAsync(parameters.length === 0 ? ["--help"] : [...parameters], { from: "user" });
    return;
  }
  const program = defineProgram([]);
  const command = await chosen.load();
  command
    .copyInheritedSettings(program)
    .helpOption("-h, --help", "print this help")
    .allowExcessArguments(false);
  program.addCommand(command);
  await program.parseAsync([...parameters], { from: "user" });
}

/**
 * Runs `slipstream` with its arguments and sets the exit status of the process. Never throws: failures are
 * told on standard error.
 */
export async function main(
  parameters: readonly string[],
  commands: readonly RegisteredCommand[] = registeredCommands,
): Promise<void> {
  const [first, ...rest] = parameters;
  const wanted = first === "help" ? [...rest.slice(0, 1), "--help"] : parameters;
  try {
    await runCommand(wanted, commands);
  } catch (error) {
    const known = commands.some((command) => command.name === wanted[0]);
    const { status, message } = describeFailure(error, known ? `slipstream ${wanted[0]}` : "slipstream");
    if (message !== "") console.error(message);
    process.exitCode = status;
  }
}
