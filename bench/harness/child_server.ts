/** A server in a process of its own: ours, or a peer's. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

/** A server that answers. */
export interface ChildServer {
  readonly url: string;
  readonly pid: number;
  /** Milliseconds from the start of the process to the line that says it is ready. */
  readonly milliseconds: number;
  /** Ends it as an operator would (SIGTERM) and waits; gives the exit status. */
  close(): Promise<number | null>;
}

/**
 * Starts Node with these arguments and waits for a line with a URL.
 * @throws with the process's last words where it ends before.
 */
export async function startServer(
  parameters: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<ChildServer> {
  const started = performance.now();
  const child: ChildProcessByStdio<null, Readable, Readable> = spawn(process.execPath, [...parameters], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let words = "";
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    words = (words + text).slice(-2000);
  });
  const ended = once(child, "close") as Promise<[number | null]>;
  const found = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const url = /https?:\/\/[^\s"]+/.exec(line)?.[0];
      if (url !== undefined) resolve(url.replace(/\/$/, ""));
    });
  });
  const url = await Promise.race([found, ended.then(([status]) => ({ status }))]);
  if (typeof url !== "string") {
    throw new Error(`${parameters[0]} ended with status ${url.status} before it was ready: ${words.trim()}`);
  }
  return {
    url,
    pid: child.pid!,
    milliseconds: performance.now() - started,
    close: async () => {
      child.kill("SIGTERM");
      const [status] = await ended;
      return status;
    },
  };
}
