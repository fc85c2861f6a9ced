import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { mpiAbsence, ranksProgram, runCommand } from "./mpi_support.ts";

/** Ranks of two hosts over TCP: network namespaces of this machine, joined by links of a known rate. */

const script = fileURLToPath(new URL("two_hosts.sh", import.meta.url));

test("collectives over a link between two hosts", (context) => {
  const absence = mpiAbsence();
  if (absence !== undefined) return context.skip(absence);
  const { status, found, output } = runCommand(script, [
    ...["100mbit", process.execPath],
    ...[ranksProgram, "network", "60"],
  ]);
  if (status === 77) return context.skip(output.trim());
  expect({ status, ranks: found.length }, output).toEqual({ status: 0, ranks: 2 });
  for (const { wrong, seconds } of found as { wrong: string[]; seconds: number }[]) {
    expect(wrong).toEqual([]);
    // Each rank sends 4 MB at 12.5 MB/s, but for what the shaper lets through at once.
    expect(seconds).toBeGreaterThan(0.25);
  }
}, 300_000);

test("a stalled rank of another host is named", (context) => {
  const absence = mpiAbsence();
  if (absence !== undefined) return context.skip(absence);
  const { status, found, output } = runCommand(script, [
    ...["1gbit", process.execPath],
    ...[ranksProgram, "stall", "1"],
  ]);
  if (status === 77) return context.skip(output.trim());
  expect({ status, ranks: found.length }, output).toEqual({ status: 0, ranks: 2 });
  for (const { code, message } of found as { code: string; message: string }[]) {
    expect(code).toBe("collective_timeout");
    expect(message).toContain("rank 1 did not come to all_reduce");
  }
}, 300_000);
