import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** The repository. */
export const root = resolve(import.meta.dirname, "../..");

/** How a command ended, and what it wrote. */
export interface Outcome {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

/** A command that is still running. */
export interface Running {
  readonly child: ChildProcess;
  readonly done: Promise<Outcome>;
  /** The match, once standard output and standard error together match. Rejects where the command ends before. */
  seen(pattern: RegExp): Promise<RegExpExecArray>;
}

/** What a line of `metrics.jsonl` holds. */
export type Metrics = Record<string, number | null> & { readonly step: number; readonly loss: number };

/** A config as plain data; `data` of a deep merge. */
export type Config = Record<string, unknown>;

/** 12 kB of text that a tiny model learns a little of within 20 steps. */
const text = Array.from({ length: 160 }, (_, line) => {
  const animals = ["whale", "otter", "heron", "lynx", "mole"];
  const verbs = ["swims past", "looks at", "follows", "hears"];
  const animal = animals[(line * 7) % 5]!;
  return `The ${animal} ${verbs[(line * 5) % 4]!} the ${animals[(line * 3 + 1) % 5]!} at ${(line * 37) % 24} o'clock, quietly.`;
}).join("\n");

/** A tiny Llama from scratch that all tests vary: 20 steps take a second. */
const tiny: Config = {
  model: {
    type: "llama",
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 48,
    max_position_embeddings: 64,
  },
  tokenizer: { train: { vocabulary_size: 280 } },
  data: { train: "text.txt", sequence_length: 32 },
  output_dir: "out",
  max_steps: 20,
  seed: 3,
  train_micro_batch_size_per_gpu: 2,
  optimizer: { type: "AdamW", params: { lr: 0.003 } },
};

function merged(base: Config, changes: Config): Config {
  const result = { ...base };
  for (const [key, value] of Object.entries(changes)) {
    const present = result[key];
    if (value === undefined) delete result[key];
    else if (isPlain(present) && isPlain(value) && !("type" in value)) result[key] = merged(present, value);
    else result[key] = value;
  }
  return result;
}

function isPlain(value: unknown): value is Config {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A folder of its own for one test, with `text.txt` in it; removed by `dispose`. */
export class Workplace {
  readonly folder: string;

  constructor(parent = tmpdir()) {
    this.folder = mkdtempSync(join(parent, "slipstream-e2e-"));
    this.write("text.txt", text);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  write(name: string, content: string | Uint8Array): void {
    writeFileSync(this.path(name), content);
  }

  read(...parts: string[]): string {
    return readFileSync(this.path(...parts), "utf8");
  }

  /**
   * Writes the tiny config with changes laid over it (undefined removes a key; a section with a `type` replaces
   * the whole section) and returns its name.
   */
  config(changes: Config = {}, name = "config.json"): string {
    this.write(name, JSON.stringify(merged(tiny, changes), null, 1));
    return name;
  }

  /** Copies a model of `test/golden/models`, without its golden values. */
  model(family: string, name = "base"): string {
    cpSync(join(root, "test/golden/models", family), this.path(name), {
      recursive: true,
      filter: (path) => !path.includes("golden."),
    });
    return name;
  }

  /** Starts `slipstream` here, as a person would. */
  start(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}): Running {
    const child = spawn(process.execPath, [join(root, "bin/slipstream.js"), ...parameters], {
      cwd: this.folder,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let errors = "";
    const watchers = new Set<() => void>();
    const look = (): void => watchers.forEach((watcher) => void watcher());
    child.stdout.setEncoding("utf8").on("data", (piece: string) => {
      output += piece;
      look();
    });
    child.stderr.setEncoding("utf8").on("data", (piece: string) => {
      errors += piece;
      look();
    });
    const done = new Promise<Outcome>((ended, failed) => {
      child.on("error", failed);
      child.on("close", (status) => ended({ status, output, errors }));
    });
    const seen = (pattern: RegExp): Promise<RegExpExecArray> =>
      new Promise((found, failed) => {
        const watcher = (): void => {
          const match = pattern.exec(output + errors);
          if (match === null) return;
          watchers.delete(watcher);
          found(match);
        };
        watchers.add(watcher);
        watcher();
        void done.then((outcome) => failed(new Error(`ended before ${pattern}: ${JSON.stringify(outcome)}`)));
      });
    return { child, done, seen };
  }

  /** Runs `slipstream` here to its end. */
  run(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    return this.start(parameters, environment).done;
  }

  /** Trains with a config to its end and expects it to succeed. */
  async train(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    const outcome = await this.run(["train", ...parameters], environment);
    if (outcome.status !== 0) throw new Error(`train ${parameters.join(" ")}: ${JSON.stringify(outcome)}`);
    return outcome;
  }

  /** The lines of a run's `metrics.jsonl`. */
  metrics(output = "out"): Metrics[] {
    return this.read(output, "metrics.jsonl")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Metrics);
  }

  /** The losses of a run, step by step. */
  losses(output = "out"): number[] {
    return this.metrics(output).map(({ loss }) => loss);
  }

  /** Names in a folder, sorted. */
  list(...parts: string[]): string[] {
    return readdirSync(this.path(...parts)).sort();
  }

  /** A hash of a file's bytes. */
  hash(...parts: string[]): string {
    return createHash("sha256")
      .update(readFileSync(this.path(...parts)))
      .digest("hex");
  }
}

/** The message of an error as a person sees it: indented lines, one a detail. */
export function message(
  summary: string,
  details: Partial<Record<"where" | "expected" | "received" | "hint", string>>,
): string {
  const line = (label: string, value: string | undefined): string[] =>
    value === undefined ? [] : [`  ${label.padEnd(9)} ${value}`];
  return [
    summary,
    ...line("where:", details.where),
    ...line("expected:", details.expected),
    ...line("received:", details.received),
    ...line("to do:", details.hint),
    "",
  ].join("\n");
}

/** A tensor as it stands in a safetensors file. */
export interface StoredTensor {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

/** Reads a safetensors file without the code under test. */
export function readSafetensors(path: string): Map<string, StoredTensor> {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end));
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, bytes });
  }
  return tensors;
}

/** Writes a safetensors file without the code under test. */
export function writeSafetensors(path: string, tensors: ReadonlyMap<string, StoredTensor>): void {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, ...[...tensors.values()].map(({ bytes }) => bytes)]));
}

/** The values of an F32 tensor. */
export function floats({ dtype, bytes }: StoredTensor): Float32Array {
  if (dtype !== "F32") throw new Error(`not F32 but ${dtype}`);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}
