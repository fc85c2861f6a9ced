import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root, Workplace } from "./support.ts";

/** GGUF files and conversions as a person meets them: through the command line, with good files and bad ones. */
const place = new Workplace();
const llama = join(root, "test/golden/models/llama");
let file: Buffer;

beforeAll(async () => {
  const { status, output, errors } = await place.run([
    ...["convert", llama, "tiny.gguf", "--type", "f32", "--no-tokenizer"],
  ]);
  expect({ status, errors }).toEqual({ status: 0, errors: "" });
  expect(output).toMatch(/^tiny\.gguf: [\d.]+ KiB, F32\n$/);
  file = readFileSync(place.path("tiny.gguf"));
});
afterAll(() => {
  place[Symbol.dispose]();
});

const golden = (): { greedy: { prompt: number[]; ids: number[] }; sequences: number[][]; loss: number } =>
  JSON.parse(readFileSync(join(llama, "golden.json"), "utf8"));

test("generate continues ids, without a tokenizer; eval gives PyTorch's loss", async () => {
  const { greedy, sequences, loss } = golden();
  const generated = await place.run([
    ...["generate", "tiny.gguf", "--ids", greedy.prompt.join(","), "--temperature", "0"],
    ...["--max-tokens", "16", "--json"],
  ]);
  expect(JSON.parse(generated.output)).toEqual({ prompt_ids: greedy.prompt, ids: greedy.ids, text: null });
  place.write("ids.json", JSON.stringify(sequences));
  const evaluated = await place.run(["eval", "tiny.gguf", "--ids-file", "ids.json"]);
  expect((JSON.parse(evaluated.output) as { loss: number }).loss).toBeCloseTo(loss, 4);
  const int8 = await place.run(["eval", "tiny.gguf", "--ids-file", "ids.json", "--quant", "int8"]);
  expect((JSON.parse(int8.output) as { loss: number }).loss / loss).toBeCloseTo(1, 1);
});

describe("a corrupt file is one message and status 1", () => {
  const changed = (at: number, bytes: Uint8Array): Buffer => {
    const copy = Buffer.from(file);
    copy.set(bytes, at);
    return copy;
  };
  const u64 = (value: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(value).buffer);
  /** Where the entry of a tensor has its type: after its name, the number of dimensions and the dimensions. */
  const typeOf = (tensor: string, dimensions: number): number =>
    file.indexOf(tensor) + tensor.length + 4 + 8 * dimensions;
  test.each<[string, () => Uint8Array, RegExp]>([
    [
      "bad magic",
      () => changed(0, Buffer.from("GGJT")),
      /^a file is not in GGUF format\n {2}where: {4}bad\.gguf\n[\s\S]*"GGJT"/,
    ],
    ["another version", () => changed(4, Uint8Array.of(9)), /version 2 or 3[\s\S]*version 9/],
    ["a number of tensors past the end", () => changed(8, u64(2n ** 60n)), /goes past the file's end/],
    ["a number of keys past the end", () => changed(16, u64(2n ** 63n)), /goes past the file's end/],
    [
      "a key's length past the end",
      () => changed(24, u64(2n ** 50n)),
      /length of a metadata key[\s\S]*1125899906842624/,
    ],
    ["cut in the header", () => file.subarray(0, 400), /ends in the middle|goes past the file's end/],
    ["cut in the tensors", () => file.subarray(0, file.length - 100), /lies beyond the end of its GGUF file/],
    [
      "an unknown quantization, named",
      () => changed(typeOf("blk.0.ffn_up.weight", 2), Uint8Array.of(16)),
      /^tensor blk\.0\.ffn_up\.weight is of type IQ2_XXS \(16\)\n[\s\S]*one of F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K/,
    ],
    ["nothing at all", () => Buffer.alloc(0), /ends in the middle of its header/],
  ])("%s", async (_, bytes, message) => {
    place.write("bad.gguf", bytes());
    const { status, output, errors } = await place.run(["generate", "bad.gguf", "--ids", "1"]);
    expect(errors).toMatch(message);
    expect(errors).not.toMatch(/internal|^ {4}at /m);
    expect({ status, output }).toEqual({ status: 1, output: "" });
  });

  test("a prompt in words needs a tokenizer", async () => {
    const { status, errors } = await place.run(["generate", "tiny.gguf", "--prompt", "Once"]);
    expect(status).toBe(1);
    expect(errors).toMatch(/the GGUF file has no tokenizer[\s\S]*prompts can still be given as token ids/);
  });
});

describe("convert refuses", () => {
  test.each<[string, string[], number, RegExp]>([
    ["a target that exists", ["tiny.gguf"], 1, /exists already[\s\S]*a file[\s\S]*--force/],
    [
      "a file where a folder stands",
      ["folder.gguf", "--force", "--no-tokenizer"],
      1,
      /exists and is a folder/,
    ],
    ["a source without a tokenizer", ["new.gguf"], 1, /no tokenizer[\s\S]*--no-tokenizer/],
    ["blocks in a folder", ["new", "--type", "q8_0"], 2, /folders have no type q8_0/],
    ["--quant for a file", ["new.gguf", "--quant", "int8"], 2, /--quant writes folders[\s\S]*--type q8_0/],
    ["--type with --quant", ["new", "--type", "f16", "--quant", "int8"], 2, /same thing twice/],
    ["--group alone", ["new", "--group", "32"], 2, /--quant int4 alone/],
    ["an unknown type", ["new.gguf", "--type", "q3_k"], 2, /Allowed choices are f32, bf16, f16, q8_0/],
  ])("%s", async (_, parameters, status, message) => {
    mkdirSync(place.path("folder.gguf"), { recursive: true });
    const before = place.list();
    const outcome = await place.run(["convert", llama, ...parameters]);
    expect(outcome.errors).toMatch(message);
    expect(outcome.status).toBe(status);
    expect(place.list()).toEqual(before);
  });

  test("a target that is the source", async () => {
    const same = await place.run(["convert", "tiny.gguf", "./tiny.gguf", "--force"]);
    expect(same.errors).toMatch(/SOURCE and TARGET are the same/);
    expect(readFileSync(place.path("tiny.gguf")).equals(file)).toBe(true);
  });
});

/** Mounts a file system of a few kilobytes; tells why not where that is not allowed. */
function mountTinyDisk(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "only root on Linux can mount a disk";
  mkdirSync(place.path("disk"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", place.path("disk")], { stdio: "pipe" });
    return undefined;
  } catch (error) {
    return `cannot mount a disk: ${(error as Error).message}`;
  }
}

const obstacle = mountTinyDisk();
test.skipIf(obstacle !== undefined)(`a full disk leaves nothing behind ${obstacle ?? ""}`, async () => {
  try {
    const asFile = await place.run(["convert", llama, "disk/a.gguf", "--no-tokenizer"]);
    expect(asFile.errors).toMatch(
      /^the disk is full\n {2}where: {4}disk\/a\.gguf\n {2}expected: [\d.]+ KiB of free/,
    );
    const asFolder = await place.run(["convert", "tiny.gguf", "disk/folder"]);
    expect(asFolder.errors).toMatch(/^the disk is full/);
    expect([asFile.status, asFolder.status]).toEqual([1, 1]);
    expect(place.list("disk")).toEqual([]);
  } finally {
    execFileSync("umount", ["-l", place.path("disk")]);
  }
});
