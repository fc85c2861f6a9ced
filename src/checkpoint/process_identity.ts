import { readFileSync } from "node:fs";
import { hostname } from "node:os";

/**
 * One process of one machine. `start` tells processes apart that were given the same id one after the
 * other (a restarted container, a reboot); it is empty where the system does not tell it.
 */
export interface ProcessIdentity {
  readonly pid: number;
  readonly host: string;
  readonly start: string;
}

/** This machine's name, in letters that a file name may hold. */
export function hostName(): string {
  return hostname().replaceAll(/[^A-Za-z0-9._-]/g, "_") || "unknown";
}

/** The identity of the process that calls. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, host: hostName(), start: startMark(process.pid) ?? "" };
}

/**
 * Whether a process still runs; "unknown" where it belongs to another machine. A killed process that
 * its parent has not yet collected does not count as running.
 */
export function isRunning(identity: ProcessIdentity): boolean | "unknown" {
  if (identity.host !== hostName()) return "unknown";
  if (!Number.isSafeInteger(identity.pid) || identity.pid < 1) return false;
  try {
    process.kill(identity.pid, 0);
  } catch (error) {
    // EPERM: it runs, under another user.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
  const mark = startMark(identity.pid);
  if (mark === "dead") return false;
  return mark === undefined || identity.start === "" || mark === identity.start;
}

/**
 * Hexadecimal digits that differ between two processes with one id: the boot and the clock tick at which
 * the process started. "dead" for one that has ended but is still listed; undefined where there is no
 * `/proc`.
 */
function startMark(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command's name, in parentheses, may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return "dead";
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").slice(0, 8);
    return `${boot}${fields[19]}`;
  } catch {
    return undefined;
  }
}
