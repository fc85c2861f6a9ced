import type { DType } from "../base/dtype.ts";
import { InternalError } from "../base/errors.ts";
import { leaf } from "../graph/build.ts";
import { Tensor } from "../tensor/tensor.ts";

/** How a parameter starts: normal numbers of a standard deviation, or a constant. */
export type Initializer =
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "constant"; readonly value: number };

/** A named, trainable tensor of a model. */
export interface Parameter {
  /** The full name, as in a Hugging Face checkpoint. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly initializer: Initializer;
  /** The symbolic tensor that stands for it in programs. */
  readonly tensor: Tensor;
}

/** All parameters of a model, by name, in order of definition. */
export type ParameterTable = ReadonlyMap<string, Parameter>;

/**
 * Where modules define their parameters: a table shared by a whole model, and the name of the module. There
 * is no hidden registration: a module receives its space and asks it for tensors.
 */
export class ParameterSpace {
  readonly #table: Map<string, Parameter>;
  readonly #dtype: DType;
  /** The module's full name; empty at the top. */
  readonly name: string;

  /** A new, empty table. @param dtype the dtype in which parameters are kept. */
  static create(dtype: DType = "f32"): ParameterSpace {
    return new ParameterSpace(new Map(), dtype, "");
  }

  private constructor(table: Map<string, Parameter>, dtype: DType, name: string) {
    this.#table = table;
    this.#dtype = dtype;
    this.name = name;
  }

  /** The space of a part of this module. */
  child(name: string | number): ParameterSpace {
    return new ParameterSpace(this.#table, this.#dtype, this.#join(String(name)));
  }

  /** Defines a parameter. */
  parameter(name: string, shape: readonly number[], initializer: Initializer): Tensor {
    const full = this.#join(name);
    if (this.#table.has(full)) throw new InternalError(`parameter "${full}" is defined twice`);
    const tensor = new Tensor(leaf(full, "parameter", shape, this.#dtype));
    this.#table.set(full, { name: full, shape, initializer, tensor });
    return tensor;
  }

  /** Every parameter defined so far in the whole model. */
  get table(): ParameterTable {
    return this.#table;
  }

  #join(name: string): string {
    return this.name === "" ? name : `${this.name}.${name}`;
  }
}

/** The random stream of a parameter: FNV-1a of its name, so that it does not depend on definition order. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
