import { InternalError } from "../../base/errors.ts";
import type { TensorType } from "../../graph/graph.ts";
import type { CutValue, ExtractedProgram, ProgramKind } from "./extract.ts";

/** How a value comes to a stage: with a micro-batch from the stage before or after, or by one of its programs. */
export type Birth = "from_previous" | "forward" | "from_next" | "backward";

/** A value that a stage holds between its programs. */
export interface StageValue {
  readonly name: string;
  readonly type: TensorType;
  readonly born: Birth;
  /** The program after which, its messages sent, nobody on this stage reads it any more. */
  readonly dies: ProgramKind;
}

/** What comes to and leaves a stage, and what it holds. */
export interface StageRoutes {
  readonly fromPrevious: readonly string[];
  readonly toNext: readonly string[];
  readonly fromNext: readonly string[];
  readonly toPrevious: readonly string[];
  readonly values: readonly StageValue[];
}

const order: readonly ProgramKind[] = ["forward", "backward", "weight_gradient"];

/** Finds the way of every value from the stage that makes it to those that read it, one stage after another. */
export function routeValues(
  stages: number,
  values: Iterable<CutValue>,
  programs: readonly ExtractedProgram[],
): StageRoutes[] {
  const routes = Array.from({ length: stages }, () => ({
    fromPrevious: [] as string[],
    toNext: [] as string[],
    fromNext: [] as string[],
    toPrevious: [] as string[],
    values: [] as StageValue[],
  }));
  for (const { name, type, stage: source, kind } of values) {
    const readers = programs.filter(({ reads }) => reads.includes(name));
    const highest = Math.max(source, ...readers.map(({ stage }) => stage));
    const lowest = Math.min(source, ...readers.map(({ stage }) => stage));
    if (highest > source && kind !== "forward")
      throw new InternalError(
        `${name} is made in the backward pass of stage ${source} and read in stage ${highest}`,
      );
    for (let stage = lowest; stage <= highest; stage++) {
      const place = routes[stage]!;
      const born: Birth =
        stage > source
          ? "from_previous"
          : stage < source
            ? "from_next"
            : kind === "forward"
              ? "forward"
              : "backward";
      const uses: ProgramKind[] = readers
        .filter((reader) => reader.stage === stage)
        .map((reader) => reader.kind);
      if (stage > source) place.fromPrevious.push(name);
      if (stage < source) place.fromNext.push(name);
      if (stage >= source && stage < highest) {
        place.toNext.push(name);
        uses.push("forward");
      }
      if (stage <= source && stage > lowest) {
        place.toPrevious.push(name);
        uses.push("backward");
      }
      const dies = order[Math.max(...uses.map((use) => order.indexOf(use)))]!;
      place.values.push({ name, type, born, dies });
    }
  }
  return routes;
}
