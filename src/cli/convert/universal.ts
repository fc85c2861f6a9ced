import { stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, FileFormatError } from "../../base/errors.ts";
import { writeFileAtomically } from "../../checkpoint/index.ts";
import {
  openUniversal,
  saveUniversalStates,
  type UniversalProgress,
} from "../../checkpoint/universal/index.ts";
import { saveTokenizer } from "../../data/index.ts";
import {
  isGgufPath,
  openUniversalSource,
  readGenerationConfig,
  saveModelFolder,
} from "../../models/index.ts";
import type { ConvertCommandOptions } from "../commands/convert.ts";
import { openTokenizer } from "./tokenizer.ts";

/** The folder of the optimizer's states within the target. */
const statesName = "checkpoint";

/**
 * Writes a universal checkpoint of DeepSpeed as a Hugging Face folder, with a training checkpoint of weights and
 * moments in `checkpoint/step-N`. The folder appears whole or not at all; one tensor is in memory at a time.
 * @param folder the universal checkpoint that the source is, or names
 */
export async function convertUniversal(options: ConvertCommandOptions, folder: string): Promise<void> {
  const { source, target, type, model: modelFolder } = options;
  const dtype = requireFloats(options);
  const checkpoint = await openUniversal(folder);
  const progress = checkpoint.hasMoments ? requireProgress(checkpoint) : undefined;
  const described = modelFolder ?? (await folderOfConfig([folder, source]));
  await using weights = await openUniversalSource(checkpoint, described);
  const tokenizer = await openTokenizer(described);
  const generation = await readGenerationConfig(described);
  const { family, config, parameters } = weights;
  const valuesOf = (name: string): Promise<Float32Array> => weights.read(parameters.get(name)!);
  await saveModelFolder(target, { family, config, parameters, dtype, valuesOf }, async (temporary) => {
    if (tokenizer !== undefined) await saveTokenizer(tokenizer, temporary);
    if (generation !== undefined)
      await writeFileAtomically(join(temporary, "generation_config.json"), generation);
    if (progress !== undefined)
      await saveUniversalStates(join(temporary, statesName), weights.pieces(), progress);
  });
  console.log(
    `${target}: ${type ?? dtype}${tokenizer === undefined ? `, without a tokenizer: ${described} has none` : ""}`,
  );
  if (progress === undefined)
    console.log("the checkpoint has no moments (exp_avg, exp_avg_sq): weights only");
  else {
    console.log(`${join(target, statesName, `step-${progress.step}`)}: weights and Adam's moments`);
    console.log(`to continue training: model.path and checkpoint.load_universal: ${target}`);
  }
}

/** The dtype of the weights. @throws ConfigError for what a universal checkpoint is not converted into. */
function requireFloats({ target, type, quant }: ConvertCommandOptions): "f32" | "bf16" | "f16" {
  const refuse = (received: string): never => {
    throw new ConfigError("bad_option", "a universal checkpoint becomes a folder of floats", {
      expected: "a folder as TARGET, with --type f32, bf16 or f16",
      received,
      hint: "convert it into a folder, then convert that",
    });
  };
  if (isGgufPath(target)) return refuse(target);
  if (quant !== undefined) return refuse(`--quant ${quant}`);
  if (type === undefined || type === "f32" || type === "bf16" || type === "f16") return type ?? "f32";
  return refuse(`--type ${type}`);
}

function requireProgress({
  folder,
  step,
  updates,
}: {
  readonly folder: string;
  readonly step: number | undefined;
  readonly updates: number | undefined;
}): UniversalProgress {
  if (step !== undefined && updates !== undefined) return { step, updates };
  throw new FileFormatError("missing_step", "nothing tells how many steps the checkpoint was trained", {
    where: folder,
    expected: "a folder whose name holds global_stepN, or step.safetensors beside the moments of a parameter",
    hint: "rename the folder to global_stepN_universal, N the steps done: Adam's moments are corrected by it",
  });
}

async function folderOfConfig(folders: readonly string[]): Promise<string> {
  for (const folder of folders) {
    if ((await stat(join(folder, "config.json")).catch(() => undefined)) !== undefined) return folder;
  }
  throw new FileFormatError(
    "missing_config",
    "a universal checkpoint alone does not say which model it is of",
    {
      where: folders[0]!,
      expected: "config.json (and tokenizer.json) in the folder, or --model FOLDER",
      hint: "give the Hugging Face folder that the training began from: --model FOLDER",
    },
  );
}
