import { spawn } from "node:child_process";

/** A program on the PATH. */
export interface FoundTool {
  readonly command: string;
  /** The first line that it prints about its version. */
  readonly version: string;
}

/** Runs `command --version`; undefined where it is not there, fails, or says nothing within 5 seconds. */
export function findTool(command: string): Promise<FoundTool | undefined> {
  return new Promise((resolve) => {
    const child = spawn(command, ["--version"], { stdio: ["ignore", "pipe", "ignore"] });
    // spawn's own timeout would keep the process waiting where the command does not exist.
    setTimeout(() => child.kill(), 5000).unref();
    let output = "";
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (piece: string) => {
      output += piece;
    });
    child.on("error", () => resolve(undefined));
    child.on("close", (code) => {
      const version = output.split("\n").find((line) => line.trim() !== "");
      resolve(code === 0 && version !== undefined ? { command, version: version.trim() } : undefined);
    });
  });
}

/** The first of `commands` that is there. */
export async function findFirstTool(commands: readonly string[]): Promise<FoundTool | undefined> {
  const found = await Promise.all(commands.map(findTool));
  return found.find((tool) => tool !== undefined);
}
