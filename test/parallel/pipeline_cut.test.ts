import { expect, test } from "vitest";
import { verifyGraph } from "../../src/graph/verify.ts";
import { cutPipeline } from "../../src/parallel/pipeline/cut.ts";
import { partitionBlocks } from "../../src/parallel/pipeline/partition.ts";
import { accumulateGraph, gradientName } from "../../src/train/programs.ts";
import { tinyLlama } from "./pipeline_support.ts";

test("every stage's programs are well-formed, and each parameter lies on one stage", () => {
  const model = tinyLlama(5);
  const graph = accumulateGraph(model, 12, true);
  for (const twoStageBackward of [false, true]) {
    const partition = partitionBlocks(graph, 4);
    const { stages, shared } = cutPipeline(graph, { partition, twoStageBackward, gradientName });
    for (const { forward, backward, weightGradient } of stages) {
      for (const program of [forward, backward, weightGradient]) if (program) verifyGraph(program.graph);
      expect(weightGradient !== undefined).toBe(twoStageBackward);
    }
    expect(shared.size).toBe(0);
    const held = stages.flatMap(({ parameters }) => parameters);
    expect(held.toSorted()).toEqual([...model.parameters.keys()].sort());
    // One activation goes on, and its gradient comes back.
    expect(stages.map(({ toNext }) => toNext.length)).toEqual([1, 1, 1, 0]);
    expect(stages.map(({ toPrevious }) => toPrevious.length)).toEqual([0, 1, 1, 1]);
  }
});

test("the products of weight gradients are apart from those that the stage before waits for", () => {
  const graph = accumulateGraph(tinyLlama(4), 12, true);
  const partition = partitionBlocks(graph, 2, "uniform");
  const { stages } = cutPipeline(graph, { partition, twoStageBackward: true, gradientName });
  // Two blocks a stage, of seven matrices each.
  for (const { backward, weightGradient } of stages) {
    const products = (program: typeof backward): number =>
      program!.graph.nodes.filter(({ op }) => op === "matmul").length;
    expect(products(backward)).toBe(14);
    expect(products(weightGradient)).toBe(14);
  }
});

test("stages may be given; what does not fit the model is refused with what would", () => {
  const graph = accumulateGraph(tinyLlama(4), 12, true);
  expect(partitionBlocks(graph, 3, [1, 3, 0]).blocks).toEqual([1, 3, 0]);
  expect(() => partitionBlocks(graph, 3, [4, 0, 0])).toThrow(/3 numbers that add up to 4 blocks/);
  expect(() => partitionBlocks(graph, 7)).toThrow(/at most 6 stages for 4 blocks/);
});
