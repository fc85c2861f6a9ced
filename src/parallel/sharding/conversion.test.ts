import { describe, expect, test } from "vitest";
import { Mesh, type MeshAxis } from "../mesh.ts";
import { afterStep, conversionCost, planConversion } from "./conversion.ts";
import { type Layout, layoutKey, withPartial } from "./layout.ts";

/** All layouts of a matrix over two axes: whole, cut in any dimension and order, or partial. */
function everyLayout(): Layout[] {
  const places: (0 | 1 | "partial" | undefined)[] = [undefined, 0, 1, "partial"];
  return places.flatMap((sequence) =>
    places.flatMap((tensor) => {
      const axesOf = (dimension: 0 | 1): MeshAxis[] => [
        ...(sequence === dimension ? (["sequence"] as const) : []),
        ...(tensor === dimension ? (["tensor"] as const) : []),
      ];
      const partial: MeshAxis[] = [
        ...(sequence === "partial" ? (["sequence"] as const) : []),
        ...(tensor === "partial" ? (["tensor"] as const) : []),
      ];
      const layout: Layout = { dimensions: [axesOf(0), axesOf(1)], partial };
      const orders = [layout];
      if (sequence === tensor && typeof sequence === "number") {
        orders.push({ ...layout, dimensions: layout.dimensions.map((axes) => axes.toReversed()) });
      }
      return orders;
    }),
  );
}

const { sizes } = new Mesh({ sequence: 2, tensor: 4 }, 0);

describe("from any layout to any other", () => {
  const layouts = everyLayout();
  test("steps lead there, and take an axis only from where it is innermost", () => {
    for (const from of layouts) {
      for (const to of layouts) {
        let current = from;
        for (const step of planConversion(from, to)) {
          const left =
            step.kind === "all_gather" ? step.dimension : "concatenate" in step ? step.concatenate : -1;
          if (left >= 0) expect(current.dimensions[left]!.at(-1)).toBe(step.axis);
          current = afterStep(current, step);
        }
        expect(layoutKey(current)).toBe(layoutKey(to));
      }
    }
  });

  test("staying costs nothing, and so do cuts of what is there but for copying", () => {
    for (const layout of layouts) expect(conversionCost(4096, layout, layout, sizes).total).toBe(0);
    const whole: Layout = { dimensions: [[], []], partial: [] };
    const cut: Layout = { dimensions: [["sequence"], ["tensor"]], partial: [] };
    expect(conversionCost(4096, whole, cut, sizes).bytes).toBe(0);
  });
});

describe("bytes of the usual conversions", () => {
  const bytes = 4096;
  const whole: Layout = { dimensions: [[], []], partial: [] };
  const rows: Layout = { dimensions: [["tensor"], []], partial: [] };
  const columns: Layout = { dimensions: [[], ["tensor"]], partial: [] };
  const partial = withPartial(whole, ["tensor"]);
  test.each([
    ["all_reduce", partial, whole, 2 * 0.75 * bytes],
    ["reduce_scatter", partial, rows, 0.75 * bytes],
    ["all_gather", rows, whole, 0.75 * bytes],
    ["all_to_all", rows, columns, (0.75 * bytes) / 4],
  ] as const)("%s", (kind, from, to, expected) => {
    expect(planConversion(from, to).map((step) => step.kind)).toEqual([kind]);
    expect(conversionCost(bytes, from, to, sizes).bytes).toBe(expected);
  });
});
