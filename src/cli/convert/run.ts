import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { formatBytes } from "../../base/bytes.ts";
import { ConfigError, FileFormatError, RunError } from "../../base/errors.ts";
import type { GgufEntry, TensorTypeName } from "../../checkpoint/gguf/index.ts";
import {
  isJsonObject,
  type JsonObject,
  writeFileAtomically,
  writeFolderAtomically,
} from "../../checkpoint/index.ts";
import { findUniversal } from "../../checkpoint/universal/index.ts";
import { saveTokenizer, type Tokenizer } from "../../data/index.ts";
import {
  isGgufPath,
  type ModelSource,
  openModelSource,
  readGenerationConfig,
  saveGguf,
  saveModelFolder,
  tokenizerEntries,
  writeCompressed,
} from "../../models/index.ts";
import type { ConvertCommandOptions } from "../commands/convert.ts";
import { openTokenizer } from "./tokenizer.ts";
import { convertUniversal } from "./universal.ts";

const floatTypes = ["f32", "bf16", "f16"] as const;
type FloatType = (typeof floatTypes)[number];

function isFloatType(type: string): type is FloatType {
  return (floatTypes as readonly string[]).includes(type);
}

/** Refuses combinations of options that mean nothing. */
function checkOptions({ source, target, type, quant, group }: ConvertCommandOptions): void {
  const refuse = (summary: string, expected: string, received: string): never => {
    throw new ConfigError("bad_option", summary, { expected, received });
  };
  if (group !== undefined && quant !== "int4") {
    refuse(
      "--group goes with --quant int4 alone",
      `--quant int4 --group ${group}`,
      `--quant ${quant ?? "absent"}`,
    );
  }
  if (quant !== undefined && type !== undefined) {
    refuse("--type and --quant say the same thing twice", "one of them", `--type ${type} --quant ${quant}`);
  }
  if (quant !== undefined && isGgufPath(target)) {
    refuse(
      "--quant writes folders",
      `--type ${quant === "int8" ? "q8_0" : "q4_0"} for a GGUF file`,
      `--quant ${quant}`,
    );
  }
  if (type !== undefined && !isFloatType(type) && !isGgufPath(target)) {
    refuse(
      `folders have no type ${type}`,
      "--type f32, bf16 or f16, --quant, or a TARGET that ends with .gguf",
      target,
    );
  }
  if (resolve(source) === resolve(target)) {
    refuse("SOURCE and TARGET are the same", "another TARGET", target);
  }
}

async function refuseExisting({ target, force }: ConvertCommandOptions): Promise<void> {
  const existing = await stat(target).catch(() => undefined);
  if (existing === undefined) return;
  const kind = existing.isDirectory() ? "folder" : "file";
  if (force !== true) {
    throw new RunError("target_exists", `the target exists already`, {
      where: target,
      received: `a ${kind}`,
      hint: "choose another TARGET, or replace it with --force",
    });
  }
  if (existing.isDirectory() === !isGgufPath(target)) return;
  throw new RunError("target_exists", `the target exists and is a ${kind}`, {
    where: target,
    expected: isGgufPath(target) ? "a file" : "a folder",
    hint: "choose another TARGET",
  });
}

function jsonOf(tokenizer: Tokenizer, name: string): JsonObject {
  const value: unknown = JSON.parse(tokenizer.files[name] ?? "{}");
  return isJsonObject(value) ? value : {};
}

function ggufTokenizer(
  options: ConvertCommandOptions,
  source: ModelSource,
  tokenizer: Tokenizer | undefined,
): Map<string, GgufEntry> {
  if (!options.tokenizer) return new Map([["tokenizer.ggml.model", { type: "string", value: "none" }]]);
  if (tokenizer === undefined) {
    throw new FileFormatError("missing_tokenizer", "the source has no tokenizer to put into the GGUF file", {
      where: source.path,
      expected: "tokenizer.json beside config.json",
      hint: "add the tokenizer, or write the file without one: --no-tokenizer",
    });
  }
  const embedding = [...source.parameters.values()][0]!;
  return tokenizerEntries({
    definition: jsonOf(tokenizer, "tokenizer.json"),
    config: jsonOf(tokenizer, "tokenizer_config.json"),
    chatTemplate: tokenizer.chatTemplate,
    model: source.config,
    vocabularySize: embedding.shape[0]!,
    where: isGgufPath(source.path) ? source.path : join(source.path, "tokenizer.json"),
  });
}

async function writeFolder(
  options: ConvertCommandOptions,
  source: ModelSource,
  tokenizer: Tokenizer | undefined,
): Promise<void> {
  const { target, quant, group, type } = options;
  const generation = isGgufPath(source.path) ? undefined : await readGenerationConfig(source.path);
  const more = async (folder: string): Promise<void> => {
    if (tokenizer !== undefined) await saveTokenizer(tokenizer, folder);
    if (generation !== undefined)
      await writeFileAtomically(join(folder, "generation_config.json"), generation);
  };
  if (quant !== undefined) {
    const scheme = quant === "int8" ? { kind: quant } : { kind: quant, group: group === "128" ? 128 : 32 };
    await writeFolderAtomically(target, async (folder) => {
      await writeCompressed(folder, source, scheme);
      await more(folder);
    });
    return;
  }
  const dtype = type === undefined || !isFloatType(type) ? source.dtype : type;
  const { family, config, parameters } = source;
  const valuesOf = (name: string): Promise<Float32Array> => source.read(parameters.get(name)!);
  await saveModelFolder(target, { family, config, parameters, dtype, valuesOf }, more);
}

/** Writes a model in another form, and says where and how large it is. */
export async function runConvert(options: ConvertCommandOptions): Promise<void> {
  checkOptions(options);
  await refuseExisting(options);
  const universal = await findUniversal(options.source);
  if (universal !== undefined) {
    await convertUniversal(options, universal);
    return;
  }
  if (options.model !== undefined) {
    throw new ConfigError("bad_option", "--model goes with a universal checkpoint of DeepSpeed alone", {
      expected: "a SOURCE with a folder zero/ in it",
      received: options.source,
      hint: "leave out --model: other sources have their own config",
    });
  }
  await using source = await openModelSource(options.source);
  const tokenizer = await openTokenizer(options.source);
  if (isGgufPath(options.target)) {
    const type = (options.type ?? source.dtype).toUpperCase() as TensorTypeName;
    const entries = ggufTokenizer(options, source, tokenizer);
    const { bytes } = await saveGguf(options.target, source, { type, tokenizer: entries });
    console.log(`${options.target}: ${formatBytes(bytes)}, ${type}`);
    return;
  }
  await writeFolder(options, source, tokenizer);
  const note = tokenizer === undefined ? ", without a tokenizer: the source has none" : "";
  console.log(`${options.target}: ${options.quant ?? options.type ?? source.dtype}${note}`);
}
