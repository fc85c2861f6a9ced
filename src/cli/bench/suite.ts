import type { Backend } from "../../runtime/backend.ts";
import type { BenchSuite, LoadCommandOptions } from "../commands/bench.ts";
import type { MachineFacts } from "./machine.ts";
import type { BenchCase } from "./measurement.ts";

/** What a suite gets to work with. */
export interface SuiteContext {
  /** The native backend, recording a timeline where one was asked for. */
  readonly backend: Backend;
  readonly machine: MachineFacts;
  /** A running server to load instead of measuring our own; for the suite serve alone. */
  readonly server?: LoadCommandOptions;
  /** Prints a finished case and keeps it. */
  readonly report: (result: BenchCase) => void;
  /** Prints and keeps what concerns the whole suite, such as a peer that is absent. */
  readonly note: (line: string) => void;
}

/** What `bench/suites/NAME.ts` exports as `run`: measures every case of the suite and reports each. */
export type RunSuite = (context: SuiteContext) => Promise<void>;

/** Every suite, in the order in which `all` runs them. */
export const benchSuites = [
  { name: "startup", summary: "how long `slipstream --help` takes" },
  { name: "matmul", summary: "matrix products against the machine's peak, PyTorch and onnxruntime" },
  {
    name: "attention",
    summary: "attention against the peak, unfused attention and PyTorch; memory by length",
  },
  { name: "training", summary: "training steps of a 30M-parameter Llama against PyTorch" },
  { name: "memory", summary: "the peak memory of training against what `slipstream plan` says" },
  { name: "recompute", summary: "memory and time of training with activations computed again" },
  { name: "generate", summary: "tokens a second that a 30M-parameter Llama writes" },
  {
    name: "serve",
    summary: "serving a 246M-parameter Llama against llama.cpp and node-llama-cpp; loads of any server",
  },
  {
    name: "parallel",
    summary: "ranks: collectives, ZeRO, links, states on disk, pipelines, attention over ranks, checkpoints",
  },
] as const satisfies readonly BenchSuite[];

/** The names that `slipstream bench` takes. */
export const benchNames: readonly BenchSuite[] = [
  ...benchSuites,
  { name: "all", summary: "every suite in turn, and a table of all bars" },
];
