import { InternalError } from "./errors.ts";

/**
 * How a weight matrix [N, K] (N output columns, K the inner size) is held in integers with shared scales:
 * w = scale * (q - zero) without `minimum`, w = scale * q - minimum with it. `zero` is the middle of the range.
 */
export interface QuantizedFormat {
  readonly bits: 4 | 8;
  /**
   * Consecutive k of one output column that share a scale, a multiple of 16; 0: all of a column, in 8 bits without
   * minimum. K need not be a multiple of it: the last group is padded with zeros.
   */
  readonly group: number;
  /** Whether each group has an offset of its own, which is subtracted. */
  readonly minimum: boolean;
}

/** A parameter that is held quantized: `rows` N output columns (or embeddings) of `columns` K elements. */
export interface QuantizedParameter {
  readonly format: QuantizedFormat;
  readonly rows: number;
  readonly columns: number;
}

/** Block formats of GGUF files that can be repacked. Positions are the native codes. */
export const blockTypes = ["q8_0", "q4_0", "q4_k", "q5_k", "q6_k"] as const;
export type BlockType = (typeof blockTypes)[number];

/** Elements of a row that one block holds, and the bytes that it takes. */
export interface BlockLayout {
  readonly elements: number;
  readonly bytes: number;
}

const blockLayouts: Record<BlockType, BlockLayout & { readonly format: QuantizedFormat }> = {
  q8_0: { elements: 32, bytes: 34, format: { bits: 8, group: 32, minimum: false } },
  q4_0: { elements: 32, bytes: 18, format: { bits: 4, group: 32, minimum: false } },
  q4_k: { elements: 256, bytes: 144, format: { bits: 4, group: 32, minimum: true } },
  q5_k: { elements: 256, bytes: 176, format: { bits: 8, group: 32, minimum: true } },
  q6_k: { elements: 256, bytes: 210, format: { bits: 8, group: 16, minimum: false } },
};

/** The size of the blocks of a type. */
export function blockLayout(type: BlockType): BlockLayout {
  const { elements, bytes } = blockLayouts[type];
  return { elements, bytes };
}

/** Bytes of N rows of K elements in blocks. K must be a multiple of the elements of a block. */
export function blockBytes(type: BlockType, rows: number, columns: number): number {
  const { elements, bytes } = blockLayouts[type];
  return ((rows * columns) / elements) * bytes;
}

/** The format into which blocks of a type are repacked: it holds their values, scales rounded to float16. */
export function formatOfBlocks(type: BlockType): QuantizedFormat {
  return blockLayouts[type].format;
}

/** Output columns of a panel of packed weights (docs/kernels.md). */
export const panelColumns = 32;

/** The most inner elements that an int32 sum of byte products of a whole column can hold. */
export const longestWholeColumn = 65536;

/** Why a format cannot be, or undefined where it can. */
export function formatProblem({ bits, group, minimum }: QuantizedFormat): string | undefined {
  if (bits !== 4 && bits !== 8) return `weights have 4 or 8 bits, not ${String(bits)}`;
  if (group === 0) {
    return bits === 8 && !minimum ? undefined : "one scale a column goes with 8 bits and no minimum";
  }
  if (!Number.isInteger(group) || group < 16 || group % 16 !== 0) {
    return `groups are multiples of 16 elements, not ${group}`;
  }
  return undefined;
}

/** Scales that a row of K elements has: one a group, one for all with group 0. */
export function groupsOf(group: number, columns: number): number {
  return group === 0 ? 1 : Math.ceil(columns / group);
}

/** K with the zeros that fill its last group; whole cache lines with group 0. */
export function paddedColumns(group: number, columns: number): number {
  const step = group === 0 ? 64 : group;
  return Math.ceil(columns / step) * step;
}

/** Bytes of the scales of a panel's group, in front of its weights: float16, float32 for whole columns. */
export function headerBytes({ group, minimum }: QuantizedFormat): number {
  return group === 0 ? panelColumns * 4 : panelColumns * 2 * (minimum ? 2 : 1);
}

/** Bytes of a matrix [N, K] in packed panels; the layout is in docs/kernels.md. */
export function packedBytes(format: QuantizedFormat, rows: number, columns: number): number {
  const problem = formatProblem(format);
  if (problem !== undefined) throw new InternalError(problem);
  const weights = (panelColumns * paddedColumns(format.group, columns) * format.bits) / 8;
  const headers = groupsOf(format.group, columns) * headerBytes(format);
  return Math.ceil(rows / panelColumns) * (weights + headers);
}

/** A format as text: `int8 a column`, `int4 in groups of 32 with minimums`. */
export function formatName({ bits, group, minimum }: QuantizedFormat): string {
  return `int${bits} ${group === 0 ? "a column" : `in groups of ${group}`}${minimum ? " with minimums" : ""}`;
}
