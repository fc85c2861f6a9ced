/** `node cli.ts FILE ARGUMENTS...`: runs `slipstream ARGUMENTS...` and writes its peak of memory to FILE. */
import { writeFileSync } from "node:fs";
import { main } from "../../src/cli/main.ts";
import { residentBytes } from "../harness/resident.ts";

const [file, ...parameters] = process.argv.slice(2);
process.on("exit", () => writeFileSync(file!, JSON.stringify({ peak: residentBytes("VmHWM") })));
await main(parameters);
