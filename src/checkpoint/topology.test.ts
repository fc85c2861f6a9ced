import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RunError } from "../base/errors.ts";
import { type Box, pieceInMemory, type StatePiece } from "../base/pieces.ts";
import { elementCount } from "../base/shape.ts";
import type { Ranks } from "./agreement.ts";
import { loadPieces } from "./load_pieces.ts";
import { runsOf, wholeBox } from "./runs.ts";
import { latestCheckpoint, saveTrainingState, startSaving } from "./training_state.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** Ranks of this process that only exchange bytes. */
function ranksOf(size: number): Ranks[] {
  const rounds: { bytes: Uint8Array[]; arrived: number; done: PromiseWithResolvers<Uint8Array[]> }[] = [];
  return Array.from({ length: size }, (_, rank) => {
    let next = 0;
    return {
      rank,
      size,
      members: Array.from({ length: size }, (_, member) => member),
      exchange: (bytes) => {
        rounds[next] ??= { bytes: [], arrived: 0, done: Promise.withResolvers() };
        const round = rounds[next++]!;
        round.bytes[rank] = bytes;
        if (++round.arrived === size) round.done.resolve(round.bytes);
        return round.done.promise;
      },
    };
  });
}

/** Every element of a tensor has a value of its own. */
function valueAt(kind: string, index: number): number {
  return kind === "parameters" ? index : -index - 0.5;
}

function pieceOf(
  kind: string,
  name: string,
  shape: number[],
  box: Box,
  start: number,
  end: number,
): StatePiece {
  const values = new Float32Array(end - start);
  for (const { whole, piece, length } of runsOf({ shape, box, start, end })) {
    for (let index = 0; index < length; index++) values[piece + index] = valueAt(kind, whole + index);
  }
  return pieceInMemory(kind, { name, shape, box, start, end }, values);
}

/** How many ways each dimension of a tensor is cut, and each box again into parts for ZeRO. */
interface Layout {
  readonly cuts: readonly number[];
  readonly parts: number;
  /** Ranks that hold the same. */
  readonly copies: number;
}

/** The pieces of each rank of a layout. */
function layOut(shape: number[], { cuts, parts, copies }: Layout): StatePiece[][] {
  const boxes: Box[] = [{ starts: [], sizes: [] }].flatMap(function cut(box: Box): Box[] {
    const axis = box.starts.length;
    if (axis === shape.length) return [box];
    const size = shape[axis]! / cuts[axis]!;
    return Array.from({ length: cuts[axis]! }, (_, index) => ({
      starts: [...box.starts, index * size],
      sizes: [...box.sizes, size],
    })).flatMap(cut);
  });
  return boxes.flatMap((box) => {
    const length = elementCount(box.sizes);
    const part = Math.ceil(length / parts);
    return Array.from({ length: parts * copies }, (_, rank) => {
      const start = Math.min(length, (rank % parts) * part);
      const end = Math.min(length, start + part);
      return ["parameters", "moment"].map((kind) => pieceOf(kind, "w", shape, box, start, end));
    });
  });
}

const layouts = fc.record({
  cuts: fc.tuple(fc.constantFrom(1, 2, 3), fc.constantFrom(1, 2)),
  parts: fc.integer({ min: 1, max: 5 }),
  copies: fc.integer({ min: 1, max: 2 }),
});

async function save(ranks: readonly (readonly StatePiece[])[], step = 1) {
  const groups = ranksOf(ranks.length);
  return await Promise.all(
    ranks.map((pieces, rank) =>
      saveTrainingState(folder, step, { pieces, state: { step } }, { group: groups[rank]! }),
    ),
  );
}

/** Clears pieces, loads them, and gives their elements. */
async function reload(pieces: readonly StatePiece[]): Promise<Float32Array[]> {
  const found: Float32Array[] = [];
  for (const piece of pieces) {
    const values = new Float32Array(piece.end - piece.start);
    await loadPieces(join(folder, "step-1"), [pieceInMemory(piece.kind, piece, values)]);
    found.push(values);
  }
  return found;
}

async function contents(pieces: readonly StatePiece[]): Promise<Float32Array[]> {
  return await Promise.all(
    pieces.map(async (piece) => {
      const values = new Float32Array(piece.end - piece.start);
      await piece.read(0, values);
      return values;
    }),
  );
}

test("what any layout wrote, any other reads", async () => {
  const shape = [12, 10];
  await fc.assert(
    fc.asyncProperty(layouts, layouts, async (written, wanted) => {
      await save(layOut(shape, written));
      for (const pieces of layOut(shape, wanted)) {
        expect(await reload(pieces)).toEqual(await contents(pieces));
      }
    }),
    { numRuns: 40 },
  );
});

test("a tensor cut by columns is read by stretches", async () => {
  const shape = [300, 512];
  await save(layOut(shape, { cuts: [1, 2], parts: 2, copies: 1 }));
  for (const pieces of layOut(shape, { cuts: [2, 1], parts: 1, copies: 1 })) {
    expect(await reload(pieces)).toEqual(await contents(pieces));
  }
});

test("ranks that hold the same share the writing", async () => {
  const saved = await save(layOut([64, 64], { cuts: [1, 1], parts: 1, copies: 4 }));
  const sizes = await Promise.all(
    [1, 2, 3, 4].map(async (rank) => {
      return (await readFile(join(folder, `step-1/tensors-0000${rank}-of-00004.safetensors`))).length;
    }),
  );
  for (const size of sizes) expect(size - (2 * 4 * 64 * 64) / 4).toBeLessThan(500);
  expect(new Set(saved.map(({ bytes }) => bytes)).size).toBe(1);
});

describe("a rank that fails", () => {
  test.each([0, 1, 2])(
    "is named by all, and leaves the checkpoint before whole: rank %i",
    async (failing) => {
      const ranks = layOut([8, 4], { cuts: [1, 1], parts: 3, copies: 1 });
      await save(ranks, 1);
      const broken = ranks.map((pieces, rank) =>
        pieces.map((piece) => {
          const { resident: _, ...elsewhere } = piece;
          const read = (): Promise<never> => Promise.reject(new Error("the disk is gone"));
          return rank === failing ? { ...elsewhere, read } : piece;
        }),
      );
      const groups = ranksOf(3);
      const results = await Promise.allSettled(
        broken.map((pieces, rank) =>
          saveTrainingState(folder, 2, { pieces, state: {} }, { group: groups[rank]!, keepLast: 1 }),
        ),
      );
      results.forEach((result, rank) => {
        const { reason } = result as PromiseRejectedResult;
        expect(String(reason)).toMatch(/the disk is gone/);
        if (rank === failing) return;
        expect(reason).toBeInstanceOf(RunError);
        expect(String(reason)).toContain(`rank ${failing} could not go on`);
      });
      expect(await readdir(folder)).toEqual(["step-1"]);
      expect((await latestCheckpoint(folder)).checkpoint?.step).toBe(1);
    },
  );

  test("is rank 0, which finds no place to write", async () => {
    const groups = ranksOf(2);
    const ranks = layOut([8, 4], { cuts: [1, 1], parts: 2, copies: 1 });
    const taken = join(folder, "taken");
    await writeFile(taken, "");
    const results = await Promise.allSettled(
      ranks.map((pieces, rank) =>
        saveTrainingState(taken, 1, { pieces, state: {} }, { group: groups[rank]! }),
      ),
    );
    for (const result of results) expect(String((result as PromiseRejectedResult).reason)).toMatch(/taken/);
  });
});

describe("while a run goes on", () => {
  test.each([true, false])(
    "what changes after `freeze` is saved as it was (in memory: %s)",
    async (inMemory) => {
      const elements = 5 * 2 ** 20;
      const shape = [elements];
      const values = new Float32Array(elements).fill(1);
      const piece = pieceInMemory(
        "parameters",
        { name: "w", shape, box: wholeBox(shape), start: 0, end: elements },
        values,
      );
      const { resident: _, ...elsewhere } = piece;
      const saved = inMemory ? piece : elsewhere;
      const pending = await startSaving(folder, 1, { pieces: [saved], state: {} });
      await new Promise((resolve) => setImmediate(resolve));
      await pending.freeze();
      values.fill(2);
      await pending.done;
      const [found] = await reload([piece]);
      expect(found!.every((value) => value === 1)).toBe(true);
    },
  );
});

test("a missing file of one rank is named", async () => {
  await save(layOut([8, 4], { cuts: [2, 1], parts: 1, copies: 1 }));
  await rm(join(folder, "step-1/tensors-00002-of-00002.safetensors"));
  const { checkpoint, notes } = await latestCheckpoint(folder);
  expect(checkpoint).toBeUndefined();
  expect(notes[0]).toMatch(/does not exist[\s\S]*tensors-00002-of-00002\.safetensors/);
});

test("a tensor of another shape, or that is not there, is named", async () => {
  await save(layOut([8, 4], { cuts: [1, 1], parts: 1, copies: 1 }));
  const other = (name: string, shape: number[]) => [
    pieceOf("parameters", name, shape, wholeBox(shape), 0, 4),
  ];
  await expect(reload(other("w", [4, 8]))).rejects.toThrow(/another shape[\s\S]*\[4, 8\][\s\S]*\[8, 4\]/);
  await expect(reload(other("v", [8, 4]))).rejects.toThrow(/no "parameters\/v"/);
});
