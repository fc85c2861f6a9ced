import { FileFormatError } from "../base/errors.ts";
import { formatShape } from "../base/shape.ts";
import { nearest } from "../base/suggest.ts";
import type { TensorReader } from "./safetensors_reader.ts";

const namesShown = 10;

/** What may differ between a model and its file. */
export interface CheckOptions {
  /** True of tensors that the file may hold though the model does not (masks that are computed). */
  readonly mayBeExtra?: (name: string) => boolean;
  /** What to do about it, where it is not to check the config. */
  readonly hint?: string;
}

/** What is checked of a reader. */
export interface NamedTensors extends Pick<TensorReader, "path" | "names" | "has"> {
  info(name: string): { readonly shape: readonly number[] };
}

/**
 * Checks that a reader holds exactly the tensors that a model expects, by name and shape.
 * @throws FileFormatError naming the missing, extra and wrongly shaped tensors (the first 10 of them).
 */
export function checkNames(
  expected: ReadonlyMap<string, readonly number[]>,
  reader: NamedTensors,
  options: CheckOptions = {},
): void {
  const extra = reader.names().filter((name) => !expected.has(name) && !options.mayBeExtra?.(name));
  const missing = [...expected.keys()].filter((name) => !reader.has(name));
  const misshapen = [...expected].filter(([name, shape]) => {
    if (!reader.has(name)) return false;
    const stored = reader.info(name).shape;
    return stored.length !== shape.length || shape.some((dimension, axis) => dimension !== stored[axis]);
  });
  const count = missing.length + misshapen.length + extra.length;
  if (count === 0) return;
  const problems = [
    ...missing.slice(0, namesShown).map((name) => {
      const similar = nearest(name, extra.slice(0, 1000));
      const suggestion = similar === undefined ? "" : `; the file holds ${similar}`;
      return `missing: ${name} ${formatShape(expected.get(name)!)}${suggestion}`;
    }),
    ...misshapen
      .slice(0, namesShown)
      .map(
        ([name, shape]) =>
          `wrong shape: ${name}, expected ${formatShape(shape)}, received ${formatShape(reader.info(name).shape)}`,
      ),
    ...extra.slice(0, namesShown).map((name) => `extra: ${name}`),
  ].slice(0, namesShown);
  if (count > problems.length) problems.push(`... and ${count - problems.length} more`);
  const code = missing.length > 0 ? "missing_tensor" : misshapen.length > 0 ? "tensor_shape" : "extra_tensor";
  throw new FileFormatError(
    code,
    ["the weights do not fit the model", ...problems.map((problem) => `    ${problem}`)].join("\n"),
    {
      where: reader.path,
      expected: `the ${expected.size} tensors of the model`,
      received: `${reader.names().length} tensors: ${missing.length} missing, ${misshapen.length} of wrong shape, ${extra.length} extra`,
      hint: options.hint ?? "check that config.json belongs to these weights",
    },
  );
}
