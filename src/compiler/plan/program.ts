import type { DType, TensorData } from "../../base/dtype.ts";
import type { Shape } from "../../base/shape.ts";
import type { CollectiveOp, LeafKind, OpAttributes, OpName, RankGroup } from "../../graph/ops.ts";

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

/**
 * Starts a collective on the lane of its group. Until its wait step, nobody may write its inputs or touch its outputs.
 * Those of one group run in the order of their starts.
 */
export interface StartStep<Op extends CollectiveOp = CollectiveOp> {
  readonly kind: "start";
  readonly op: Op;
  readonly attributes: OpAttributes[Op];
  readonly inputs: readonly number[];
  /** Outputs may be the memory of their inputs, for `all_reduce` only. */
  readonly outputs: readonly number[];
  /** A position in `Program.groups`. */
  readonly group: number;
  /** What its wait step calls it: 0, 1, … in the order of the starts. */
  readonly ticket: number;
  readonly scope: string;
}

/** Waits for a collective that was started. Every start has one wait. */
export interface WaitStep {
  readonly kind: "wait";
  readonly op: CollectiveOp;
  readonly ticket: number;
  readonly scope: string;
}

/** A step of a program, discriminated by `kind`. */
export type Step = KernelStep | StoreStep | TransferStep | StartStep | WaitStep;

/** A graph with every byte placed and every step in order: what a backend runs. */
export interface Program {
  readonly name: string;
  /** Names of the symbols, with their bounds, in the order in which runs pass their values. */
  readonly symbols: readonly { readonly name: string; readonly bound: number }[];
  readonly tensors: readonly ProgramTensor[];
  readonly bindings: readonly Binding[];
  readonly constants: readonly TensorData[];
  /** The groups of collectives, as this rank is in them. Those of one rank are not among them. */
  readonly groups: readonly RankGroup[];
  /** Steps that depend on parameters alone; run when parameters have changed. */
  readonly prepare: readonly Step[];
  /** Steps of every run. */
  readonly steps: readonly Step[];
  readonly arenaBytes: number;
  readonly preparedBytes: number;
}
