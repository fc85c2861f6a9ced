import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);

/**
 * Runs a script of bench/children in a process of its own and gives what it printed.
 * @throws with the script's own words where it fails.
 */
export async function runChild(
  script: "cli" | "attention_length" | "offload",
  parameters: readonly string[],
  folder?: string,
): Promise<string> {
  const file = fileURLToPath(new URL(`../children/${script}.ts`, import.meta.url));
  const options = { maxBuffer: 2 ** 26, ...(folder === undefined ? {} : { cwd: folder }) };
  const { stdout } = await execute(process.execPath, [file, ...parameters], options);
  return stdout;
}
