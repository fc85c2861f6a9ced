import type { DType, TensorData } from "../base/dtype.ts";
import { checkNames, convertInto, openModelWeights, type TensorReader } from "../checkpoint/index.ts";
import type { Parameter, ParameterTable } from "../nn/parameters.ts";
import { openCompressed } from "./compressed/reader.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";

/** The weights of a model folder, by the names of parameters. */
export interface FolderWeights extends AsyncDisposable {
  readonly reader: TensorReader;
  /** The name under which a parameter is stored. */
  storedName(parameter: Parameter): string;
  /** The dtype in which a parameter is stored; that of its scales where it is quantized. */
  dtypeOf(parameter: Parameter): DType;
  /** Reads a parameter into memory of its shape. */
  read(parameter: Parameter, memory: TensorData, as: DType): Promise<void>;
}

/** Parameter names as a reader of this family's checkpoints knows them. */
function storedNames(
  family: ModelFamily,
  parameters: ParameterTable,
  reader: TensorReader,
): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of parameters.keys()) {
    const alternative = family.alternativeName?.(name);
    names.set(
      name,
      !reader.has(name) && alternative !== undefined && reader.has(alternative) ? alternative : name,
    );
  }
  return names;
}

/**
 * Opens the weights of a model folder. Quantized folders (compressed-tensors) give floats.
 * @throws FileFormatError naming every tensor that is missing, extra or of another shape.
 */
export async function openFolderWeights(
  folder: string,
  model: { readonly config: ConfigJson; readonly family: ModelFamily; readonly parameters: ParameterTable },
): Promise<FolderWeights> {
  return await matchWeights(await openModelWeights(folder), model);
}

/**
 * The same of weights that were opened, which it closes: with itself, or where they do not fit.
 * @param hint what to do where they do not fit, if it is not to check the config
 */
export async function matchWeights(
  stored: TensorReader,
  model: { readonly config: ConfigJson; readonly family: ModelFamily; readonly parameters: ParameterTable },
  hint?: string,
): Promise<FolderWeights> {
  const { config, family, parameters } = model;
  try {
    const reader = openCompressed(stored, config) ?? stored;
    const names = storedNames(family, parameters, reader);
    const expected = new Map([...parameters.values()].map(({ name, shape }) => [names.get(name)!, shape]));
    // A tied checkpoint may still hold its output projection.
    const ignored = [...(family.ignoredNames ?? []), /^lm_head\.weight$/, /rotary_emb\.inv_freq$/];
    checkNames(expected, reader, {
      mayBeExtra: (name) => ignored.some((pattern) => pattern.test(name)),
      ...(hint === undefined ? {} : { hint }),
    });
    return {
      reader,
      storedName: ({ name }) => names.get(name)!,
      dtypeOf: ({ name }) => reader.info(names.get(name)!).dtype,
      read: async ({ name }, memory, as) => {
        const storedName = names.get(name)!;
        const { dtype } = reader.info(storedName);
        const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
        if (dtype === as) await reader.readInto(storedName, bytes);
        else convertInto(await reader.read(storedName), dtype, memory, as);
      },
      [Symbol.asyncDispose]: () => reader.close(),
    };
  } catch (error) {
    await stored.close();
    throw error;
  }
}
