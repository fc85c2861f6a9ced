/** How much of the time goes into JavaScript while 32 clients are streamed to over HTTP. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { serve } from "../../src/serve/http/index.ts";
import type { MeasuredEngine } from "./engines.ts";

const clients = fileURLToPath(new URL("../children/stream_clients.ts", import.meta.url));

/** Processor time of the thread that runs JavaScript, kernel calls included. Seconds. */
function javascriptSeconds(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1e6;
}

/**
 * Serves 32 streams to clients in another process. The processor time of the main thread is everything that
 * TypeScript does and causes: HTTP, JSON, events, sockets, scheduling, detokenization, and starting the native step.
 */
export async function measureOverhead(context: SuiteContext, measured: MeasuredEngine): Promise<void> {
  const streams = 32;
  const answer = 160;
  const server = await serve(measured.engine, { host: "127.0.0.1", port: 0, logLevel: "none" });
  let begun: { time: number; javascript: number } | undefined;
  let ended: { time: number; javascript: number } | undefined;
  let steps = 0;
  let inside = 0;
  measured.engine.observe({
    step: (report) => {
      if (report.sequences < streams || report.promptTokens > 0) return;
      const moment = { time: performance.now(), javascript: javascriptSeconds() };
      if (begun === undefined) {
        begun = moment;
        return;
      }
      ended = moment;
      steps++;
      inside += report.programSeconds;
    },
  });
  try {
    const child = spawn(
      process.execPath,
      [clients, server.url, measured.engine.modelName, String(streams), String(answer)],
      { stdio: ["ignore", "inherit", "inherit"] },
    );
    const [status] = (await once(child, "close")) as [number | null];
    if (status !== 0) throw new Error(`the clients ended with status ${status}`);
  } finally {
    await server.close();
  }
  if (begun === undefined || ended === undefined) throw new Error(`no two steps served ${streams} streams`);
  const seconds = (ended.time - begun.time) / 1000;
  const active = ended.javascript - begun.javascript;
  const title = `JavaScript while ${streams} clients are streamed to`;
  context.report({
    name: title,
    figures: [
      figure("time of a step", "seconds", seconds / steps),
      figure("of it inside the native program", "share", inside / seconds),
      figure("JavaScript a step", "seconds", active / steps),
      figure("JavaScript a token", "seconds", active / steps / streams),
    ],
    bars: [bar(`${title}: share of step time`, "share", "at most", 0.05, active / seconds)],
    notes: [
      `${steps} steps; processor time of the server's main thread over wall time; clients in another process`,
    ],
  });
}
