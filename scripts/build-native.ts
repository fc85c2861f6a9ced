/** `npm run build`: compiles the native code. `--emulated` adds what only tests run. */
import { SlipstreamError } from "../src/base/errors.ts";
import { buildNative } from "../src/runtime/native/build.ts";
import { buildMpi } from "../src/runtime/native/build_mpi.ts";

try {
  await buildNative({ emulated: process.argv.includes("--emulated") });
  await buildMpi();
} catch (error) {
  console.error(error instanceof SlipstreamError ? error.message : error);
  process.exitCode = 1;
}
