import { readFileSync, writeFileSync } from "node:fs";

/** A field of /proc/self/status in bytes. */
function statusBytes(field: "VmRSS" | "VmHWM"): number {
  const text = readFileSync("/proc/self/status", "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(text)![1]) * 1024;
}

/**
 * By how much the memory that this process holds grew at most while `body` ran. Undefined where the system
 * does not tell (only Linux does).
 */
export async function residentGrowth(body: () => Promise<void>): Promise<number | undefined> {
  try {
    // 5 resets the peak (proc_pid_clear_refs(5)).
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    await body();
    return undefined;
  }
  const before = statusBytes("VmRSS");
  await body();
  return statusBytes("VmHWM") - before;
}
