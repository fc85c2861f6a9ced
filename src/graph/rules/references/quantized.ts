import { blockLayout, formatOfBlocks, groupsOf } from "../../../base/quantized_format.ts";
import type { ReferenceRule } from "../reference.ts";
import { checkIndex, rowsOf } from "./common.ts";
import { applyEpilogue } from "./matrix.ts";
import { quantizeGroup, quantizeRow } from "./quantize.ts";
import { readBlock } from "./quantized_blocks.ts";
import { QuantizedPanels } from "./quantized_panels.ts";

type QuantizedOp =
  | "quantize_rows"
  | "matmul_quantized"
  | "repack_blocks"
  | "quantize_matrix"
  | "embedding_quantized"
  | "dequantize_matrix";

/** Meaning of the ops on quantized weights. Packed bytes are those of the kernels. */
export const quantizedReferences: { readonly [Op in QuantizedOp]: ReferenceRule<Op> } = {
  quantize_rows: ([x], { group }, shapes) => {
    const [values, scales, sums] = shapes.map((shape) => new Float64Array(shape.reduce((a, b) => a * b, 1)));
    const { size } = rowsOf(x!);
    const rows = shapes[1]!.slice(0, -1).reduce((a, b) => a * b, 1);
    const groups = groupsOf(group, size);
    for (let row = 0; row < rows; row++) {
      const quantized = quantizeRow(x!.values.subarray(row * size, (row + 1) * size), group);
      values!.set(quantized.values, row * quantized.values.length);
      scales!.set(quantized.scales, row * groups);
      sums!.set(quantized.sums, row * groups);
    }
    return [values!, scales!, sums!];
  },
  matmul_quantized: ([values, scales, sums, ...rest], attributes, shapes) => {
    const { weights, inner } = attributes;
    return weights.map(({ format, columns }, index) => {
      const panels = new QuantizedPanels({ format, rows: columns, columns: inner }, rest[index]!.values);
      const padded = values!.shape.at(-1)!;
      const rows = shapes[index]!.slice(0, -1).reduce((a, b) => a * b, 1);
      const result = new Float64Array(rows * columns);
      for (let column = 0; column < columns; column++) {
        const stored = Float64Array.from({ length: padded }, (_, k) => panels.get(column, k) - panels.zero);
        for (let row = 0; row < rows; row++) {
          let total = 0;
          for (let g = 0; g < panels.groups; g++) {
            let dot = 0;
            for (let k = g * panels.group; k < (g + 1) * panels.group; k++) {
              dot += stored[k]! * values!.values[row * padded + k]!;
            }
            const at = row * panels.groups + g;
            const bracket = panels.scale(column, g) * dot - panels.minimum(column, g) * sums!.values[at]!;
            total += scales!.values[at]! * bracket;
          }
          result[row * columns + column] = total;
        }
      }
      const bias = attributes.bias ? [rest[weights.length + index]!] : [];
      const residual = attributes.residual ? [rest.at(-1)!] : [];
      return applyEpilogue(result, [...bias, ...residual], attributes);
    });
  },
  repack_blocks: ([blocks], { type, rows, columns }) => {
    const { elements, bytes } = blockLayout(type);
    const panels = new QuantizedPanels({ format: formatOfBlocks(type), rows, columns });
    const source = Uint8Array.from(blocks!.values);
    const perRow = columns / elements;
    for (let row = 0; row < rows; row++) {
      for (let block = 0; block < perRow; block++) {
        const groups = readBlock(type, source.subarray((row * perRow + block) * bytes));
        groups.forEach(({ q, zero, scale, minimum }, index) => {
          const group = block * groups.length + index;
          panels.setScale(row, group, scale);
          if (panels.format.minimum) panels.setMinimum(row, group, minimum);
          q.forEach((value, i) => {
            panels.set(row, group * panels.group + i, value - zero + panels.zero);
          });
        });
      }
    }
    return [Float64Array.from(panels.bytes)];
  },
  quantize_matrix: ([x], { format }) => {
    const [rows, columns] = x!.shape as [number, number];
    const panels = new QuantizedPanels({ format, rows, columns });
    for (let row = 0; row < rows; row++) {
      for (let g = 0; g < panels.groups; g++) {
        const begin = row * columns + g * panels.group;
        const group = x!.values.subarray(begin, Math.min(begin + panels.group, (row + 1) * columns));
        if (group.length === 0) continue;
        const { q, scale, minimum } = quantizeGroup(group, format);
        panels.setScale(row, g, scale);
        if (format.minimum) panels.setMinimum(row, g, minimum);
        q.forEach((value, i) => {
          panels.set(row, g * panels.group + i, value + panels.zero);
        });
      }
    }
    return [Float64Array.from(panels.bytes)];
  },
  embedding_quantized: ([packed, ids], { format, rows, columns }) => {
    const panels = new QuantizedPanels({ format, rows, columns }, packed!.values);
    const y = new Float64Array(ids!.values.length * columns);
    ids!.values.forEach((id, position) => {
      y.set(panels.row(checkIndex("embedding_quantized", "ids", id, position, rows)), position * columns);
    });
    return [y];
  },
  dequantize_matrix: ([packed], { format, rows, columns }) => {
    const panels = new QuantizedPanels({ format, rows, columns }, packed!.values);
    const y = new Float64Array(rows * columns);
    for (let row = 0; row < rows; row++) y.set(panels.row(row), row * columns);
    return [y];
  },
};
