import { Command } from "commander";
import { helpEnding } from "../help.ts";

/** `slipstream build`, calling `run`. */
export function defineBuild(run: () => Promise<void>): Command {
  return new Command("build")
    .description(
      "Compile the native kernels with this machine's C++ compiler (g++ 12 or clang++ 15, or newer): needed " +
        "once after installing, about a minute on two cores. Nothing is downloaded.",
    )
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream build", "compile what is out of date"],
          ["SLIPSTREAM_CXX=clang++-16 slipstream build", "with another compiler"],
          ["SLIPSTREAM_MPICXX=/opt/mpich/bin/mpicxx slipstream build", "for ranks of another MPI"],
        ],
        next: "`slipstream doctor` shows what was built and which instruction set is used",
      }),
    )
    .action(run);
}
