import type { DType, TensorData } from "../../base/dtype.ts";
import type { Shape } from "../../base/shape.ts";
import type { LeafKind, OpAttributes, OpName } from "../../graph/ops.ts";

/** Where the bytes of a tensor are. Offsets are in bytes. */
export type Storage =
  /** In the arena: alive only between its first and last step. */
  | { readonly kind: "arena"; readonly offset: number }
  /** In the memory that is filled once from parameters. */
  | { readonly kind: "prepared"; readonly offset: number }
  /** In memory that the caller binds. */
  | { readonly kind: "binding"; readonly binding: number }
  /** In a constant of the program. */
  | { readonly kind: "constant"; readonly constant: number };

/** A tensor of the program: views of the same bytes are tensors of their own. */
export interface ProgramTensor {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly storage: Storage;
}

/** Memory that the caller binds by name. */
export interface Binding {
  readonly name: string;
  readonly role: LeafKind | "output";
  readonly shape: Shape;
  readonly dtype: DType;
}

/** One op on planned tensors. Indices are positions in `Program.tensors`. */
export interface KernelStep<Op extends OpName = OpName> {
  readonly kind: "kernel";
  readonly op: Op;
  readonly attributes: OpAttributes[Op];
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  /** Whether the result is added to what the float32 output holds. */
  readonly accumulate: boolean;
  /** Where in the model the step comes from. */
  readonly scope: string;
}

/** Stores a result in the memory of a leaf at the end of its life: copies it, or adds it. */
export interface StoreStep {
  readonly kind: "store";
  readonly input: number;
  readonly output: number;
  readonly accumulate: boolean;
  readonly scope: string;
}

/** Starts to move a tensor between memory and a store, or waits until it has moved. */
export interface TransferStep {
  readonly kind: "transfer";
  readonly action: "load" | "save" | "load_wait" | "save_wait";
  /** The name of the store, and the byte in it from which the tensor lies. */
  readonly store: string;
  readonly offset: number;
  readonly tensor: number;
  /** What pairs a start with its wait. */
  readonly number: number;
  /** What is moved. */
  readonly scope: string;
}

/** A step of a program, discriminated by `kind`. */
export type Step = KernelStep | StoreStep | TransferStep;

/** A graph with every byte placed and every step in order: what a backend runs. */
export interface Program {
  readonly name: string;
  /** Names of the symbols, with their bounds, in the order in which runs pass their values. */
  readonly symbols: readonly { readonly name: string; readonly bound: number }[];
  readonly tensors: readonly ProgramTensor[];
  readonly bindings: readonly Binding[];
  readonly constants: readonly TensorData[];
  /** Steps that depend on parameters alone; run when parameters have changed. */
  readonly prepare: readonly Step[];
  /** Steps of every run. */
  readonly steps: readonly Step[];
  readonly arenaBytes: number;
  readonly preparedBytes: number;
}
