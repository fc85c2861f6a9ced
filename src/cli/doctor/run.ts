import type { DoctorOptions } from "../commands/doctor.ts";
import { collectReport } from "./collect.ts";
import { formatReport } from "./report.ts";

/** Prints what this machine has and how Slipstream would use it. */
export async function runDoctor(options: DoctorOptions): Promise<void> {
  const report = await collectReport();
  console.log(options.json ? JSON.stringify(report) : formatReport(report));
}
