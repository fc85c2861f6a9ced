import { readFileSync } from "node:fs";

/**
 * Bytes that this process holds now (`VmRSS`), or held at most since it began (`VmHWM`); undefined where the
 * system does not tell (only Linux does). The peak that getrusage(2) tells would be that of whoever started
 * this process, where that was more.
 */
export function residentBytes(field: "VmRSS" | "VmHWM"): number | undefined {
  try {
    const text = readFileSync("/proc/self/status", "utf8");
    const [, kilobytes] = new RegExp(`${field}:\\s+(\\d+) kB`).exec(text) ?? [];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch {
    return undefined;
  }
}
