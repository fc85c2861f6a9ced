import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { FileFormatError } from "../../base/errors.ts";
import { systemErrorCode } from "../../base/system_errors.ts";
import { asReadError } from "../file_errors.ts";
import { refusePickles, refuseRankFiles } from "./pickles.ts";

/** The tensors of a parameter: its weights, and the moments of Adam. */
export const universalStates = ["fp32", "exp_avg", "exp_avg_sq"] as const;

/** One of the tensors of a parameter. */
export type UniversalState = (typeof universalStates)[number];

const momentStates: readonly UniversalState[] = ["exp_avg", "exp_avg_sq"];
const namesShown = 10;

/** Where the tensors of a universal checkpoint lie; nothing is opened yet. */
export interface UniversalLayout {
  readonly folder: string;
  /** The files of each parameter, by its name without DeepSpeed's `module.`. */
  readonly parameters: ReadonlyMap<string, Partial<Record<UniversalState | "step", string>>>;
  /** Whether every parameter has Adam's moments; otherwise none has. */
  readonly hasMoments: boolean;
  /** The step that the folder's name tells, as in `global_step10_universal`. */
  readonly namedStep: number | undefined;
}

/**
 * The folder of the universal checkpoint that `path` is, or that its `latest_universal` names; undefined where it is
 * something else.
 * @throws FileFormatError where it is a checkpoint of DeepSpeed's ranks, which are pickles.
 */
export async function findUniversal(path: string): Promise<string | undefined> {
  const names = await readdir(path).catch(() => undefined);
  if (names === undefined) return undefined;
  if (names.includes("zero") && (await isFolder(join(path, "zero")))) return path;
  if (names.includes("config.json")) return undefined;
  if (names.includes("latest_universal")) {
    const named = (await readFile(join(path, "latest_universal"), "utf8")).trim();
    const folder = join(path, named);
    if (named === basename(named) && (await isFolder(join(folder, "zero")))) return folder;
  }
  const ofRank = names.find((name) => /_(optim|model)_states\.pt$/.test(name));
  if (ofRank !== undefined) refuseRankFiles(path, ofRank);
  return undefined;
}

/**
 * Lists the tensors of a universal checkpoint: `zero/NAME/fp32.safetensors`, `exp_avg.safetensors`,
 * `exp_avg_sq.safetensors` and, in some, `step.safetensors` (DeepSpeed's "Universal Checkpointing", arXiv 2406.18820).
 * @throws FileFormatError where tensors are pickled or missing, naming them.
 */
export async function readLayout(folder: string): Promise<UniversalLayout> {
  const zero = join(folder, "zero");
  const parameters = new Map<string, Partial<Record<UniversalState | "step", string>>>();
  const folders = new Map<string, string>();
  const pickled: string[] = [];
  for (const entry of await readFolder(zero)) {
    if (!entry.isDirectory()) continue;
    const files = new Set((await readFolder(join(zero, entry.name))).map(({ name }) => name));
    const found: Partial<Record<UniversalState | "step", string>> = {};
    for (const state of [...universalStates, "step"] as const) {
      if (files.has(`${state}.safetensors`)) found[state] = join(zero, entry.name, `${state}.safetensors`);
      else if (state !== "step" && files.has(`${state}.pt`)) pickled.push(`zero/${entry.name}/${state}.pt`);
    }
    const name = entry.name.replace(/^(module\.)+/, "");
    const other = folders.get(name);
    if (other !== undefined) refuseTwice(zero, name, [other, entry.name]);
    folders.set(name, entry.name);
    parameters.set(name, found);
  }
  if (pickled.length > 0) refusePickles(folder, pickled);
  if (parameters.size === 0) {
    throw new FileFormatError("empty_universal", "a universal checkpoint holds no parameters", {
      where: zero,
      expected: "a folder for each parameter, with fp32.safetensors in it",
      hint: "check that the checkpoint was copied whole",
    });
  }
  const requireAll = (state: UniversalState): void => {
    const lacking = [...parameters].filter(([, files]) => files[state] === undefined);
    if (lacking.length > 0) refuseMissing(zero, `${state}.safetensors`, lacking, parameters.size, folders);
  };
  requireAll("fp32");
  const hasMoments = [...parameters.values()].some((files) => momentStates.some((state) => files[state]));
  if (hasMoments) momentStates.forEach(requireAll);
  const step = /global_step(\d+)/.exec(basename(resolve(folder)))?.[1];
  return { folder, parameters, hasMoments, namedStep: step === undefined ? undefined : Number(step) };
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isDirectory(),
    (error: unknown) => {
      if (systemErrorCode(error) === "ENOENT") return false;
      throw asReadError(error, path);
    },
  );
}

async function readFolder(path: string) {
  try {
    return (await readdir(path, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    throw asReadError(error, path);
  }
}

function refuseTwice(where: string, name: string, folders: readonly string[]): never {
  throw new FileFormatError("duplicate_parameter", "two folders hold the same parameter", {
    where,
    expected: `one folder of ${name}`,
    received: folders.join(" and "),
    hint: "remove the one that does not belong to this checkpoint",
  });
}

function refuseMissing(
  where: string,
  file: string,
  lacking: readonly (readonly [string, object])[],
  count: number,
  folders: ReadonlyMap<string, string>,
): never {
  const shown = lacking.slice(0, namesShown).map(([name]) => folders.get(name)!);
  const rest = lacking.length - shown.length;
  throw new FileFormatError("missing_file", `parameters of a universal checkpoint lack ${file}`, {
    where,
    expected: `${file} in the folder of each of ${count} parameters`,
    received: `none in ${shown.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`,
    hint:
      file === "fp32.safetensors"
        ? "convert the checkpoint to safetensors again, or copy it whole"
        : "copy the checkpoint whole; where its optimizer is not to be taken along, remove exp_avg and exp_avg_sq of every parameter",
  });
}
