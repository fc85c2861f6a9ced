import { bytesPerElement } from "../../base/dtype.ts";
import { InternalError, ShapeError } from "../../base/errors.ts";
import { type Dimension, maximumElements, type Shape, upperBound } from "../../base/shape.ts";
import { rewrite } from "../../compiler/passes/rewrite.ts";
import { cast, reshape, transpose } from "../../graph/build.ts";
import { apply, createNode, dtypeOf, type Graph, type Node, shapeOf, type Value } from "../../graph/graph.ts";
import type { AttentionAttributes, RankGroup } from "../../graph/ops.ts";
import type { Mesh } from "../mesh.ts";
import { type GridDimension, gridGroups, gridPlace, type SequenceGrid, sequenceIndex } from "./grid.ts";
import { passAround, passAroundSums, type Rings } from "./rings.ts";
import { placesOf, type TokenOrder } from "./token_order.ts";
import { visiblePairs } from "./visible_pairs.ts";

/** How the ranks of the sequence axis attend to each other's tokens. */
export interface ContextPlan {
  readonly grid: SequenceGrid;
  /** Which tokens each rank holds: the batch must lie so (`tokenOrder`). */
  readonly order: TokenOrder;
  /**
   * What is passed around for gradients: keys and values with their gradients, or queries with theirs, the gradient
   * of the result and its statistics (Sun et al., "BurstAttention", arXiv 2403.09347), or what has fewer bytes.
   */
  readonly backward: "keys" | "queries" | "least";
}

/** What the forward pass of an attention leaves for its backward pass. */
interface Attended {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  readonly logsumexp: Value;
}

/**
 * Rewrites the attention of a graph whose tokens are cut over the `sequence` axis, queries, keys, values and results
 * alike, so that every query still sees the tokens of all ranks: heads are exchanged for tokens along one dimension of
 * the grid (Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509), keys and values are passed around the others.
 * Every rank gets the same collectives in the same order.
 * @throws ShapeError where the heads of an attention do not divide among the ranks that split them.
 */
export function contextParallel(graph: Graph, mesh: Mesh, plan: ContextPlan): Graph {
  if (mesh.sizes.sequence === 1) return graph;
  const context = new ContextAttention(mesh, plan);
  const attended = new Map<Node, Attended>();
  return rewrite(graph, (node, inputs) => {
    if (node.op === "attention") {
      const [q, k, v, offsets] = inputs as [Value, Value, Value, Value];
      const { out, kept } = context.forward(q, k, v, offsets, node.attributes);
      attended.set(kept.logsumexp.node, kept);
      return [out, kept.logsumexp];
    }
    if (node.op === "attention_gradient") {
      const [dOut, , k, , out, logsumexp, offsets] = inputs as [
        Value,
        Value,
        Value,
        Value,
        Value,
        Value,
        Value,
      ];
      const kept = attended.get(logsumexp.node);
      if (kept === undefined) {
        throw new InternalError("the gradient of an attention stands without its forward pass", {
          where: node.scope.name,
        });
      }
      return context.backward(dOut, out, k, kept, offsets, node.attributes);
    }
    return undefined;
  });
}

/** Attention of one rank within its grid. */
class ContextAttention {
  readonly #plan: ContextPlan;
  readonly #ranks: number;
  readonly #own: ReturnType<typeof gridPlace>;
  readonly #head: RankGroup | undefined;
  readonly #rings: Rings;
  readonly #places = new Map<string, Value>();

  constructor(mesh: Mesh, plan: ContextPlan) {
    const { grid } = plan;
    this.#plan = plan;
    this.#ranks = mesh.sizes.sequence;
    if (grid.head * grid.outer * grid.inner !== this.#ranks) {
      throw new InternalError(
        `a grid of ${grid.head} x ${grid.outer} x ${grid.inner} ranks on ${this.#ranks}`,
      );
    }
    this.#own = gridPlace(grid, mesh.place.sequence);
    const groups = gridGroups(mesh, grid);
    const alone = (dimension: GridDimension): RankGroup =>
      groups.get(dimension)?.group ?? { axes: `sequence.${dimension}`, size: 1, rank: 0 };
    this.#head = groups.get("head")?.group;
    this.#rings = { inner: alone("inner"), outer: alone("outer") };
  }

  /** The result over all tokens, and what the backward pass needs. */
  forward(
    q: Value,
    k: Value,
    v: Value,
    offsets: Value,
    attributes: AttentionAttributes,
  ): { out: Value; kept: Attended } {
    const tokens = shapeOf(q)[0]!;
    const [ownQ, ownK, ownV] = this.#headsForTokens(q, k, v);
    const rings = this.#rings.inner.size * this.#rings.outer.size;
    let sums: Value[] = [];
    let visited = 0;
    passAround(this.#rings, [ownK, ownV], ([keys, values], source) => {
      // The last block rounds to the dtype of the result; sums are float32.
      const dtype = ++visited === rings ? dtypeOf(q) : "f32";
      const block = { ...attributes, dtype, fraction: this.#fraction(tokens, source, attributes) };
      const places = [this.#placesOf(tokens, this.#context), this.#placesOf(tokens, source)];
      const node = createNode("attention_block", [ownQ, keys!, values!, ...places, offsets, ...sums], block);
      sums = [0, 1].map((index) => ({ node, index }));
    });
    const [out, logsumexp] = sums as [Value, Value];
    const kept = { q: ownQ, k: ownK, v: ownV, logsumexp };
    return { out: this.#tokensForHeads([out])[0]!, kept };
  }

  /** The gradients of q, k and v. @param k as it was before its heads were exchanged */
  backward(
    dOut: Value,
    out: Value,
    k: Value,
    kept: Attended,
    offsets: Value,
    attributes: AttentionAttributes,
  ): Value[] {
    const tokens = shapeOf(dOut)[0]!;
    const delta = this.#exchange([apply("attention_delta", [dOut, out], {})], 0, 1)[0]!;
    const [gradient] = this.#exchange([dOut], 1, 0) as [Value];
    const around = { ...kept, gradient, delta, tokens, offsets, attributes };
    const [dQ, dK, dV] = this.#passesQueries(around) ? this.#aroundQueries(around) : this.#aroundKeys(around);
    const dtype = dtypeOf(kept.q);
    const results = this.#tokensForHeads([cast(dQ!, dtype), cast(dK!, dtype), cast(dV!, dtype)]);
    return [
      results[0]!,
      this.#sumRepeats(results[1]!, shapeOf(k)),
      this.#sumRepeats(results[2]!, shapeOf(k)),
    ];
  }

  /** Keys and values travel, and with them the sums of their gradients. */
  #aroundKeys({ q, k, v, gradient, logsumexp, delta, tokens, offsets, attributes }: Around): Value[] {
    let dQ: Value | undefined;
    const sums = passAroundSums(this.#rings, [k, v], ([keys, values], source) => {
      const places = [this.#placesOf(tokens, this.#context), this.#placesOf(tokens, source)];
      const operands = [gradient, q, keys!, values!, logsumexp, delta, ...places, offsets];
      const before = dQ === undefined ? [] : [dQ];
      const node = createNode("attention_block_gradient", [...operands, ...before], {
        ...attributes,
        fraction: this.#fraction(tokens, source, attributes),
        sums: dQ === undefined ? "none" : "queries",
      });
      dQ = { node, index: 0 };
      return [1, 2].map((index) => ({ node, index }));
    });
    return [dQ!, ...sums];
  }

  /** Queries, the gradient of their results and their statistics travel, and with them the sum of their gradients. */
  #aroundQueries({ q, k, v, gradient, logsumexp, delta, tokens, offsets, attributes }: Around): Value[] {
    let own: Value[] = [];
    const start = [q, gradient, logsumexp, delta];
    const [dQ] = passAroundSums(this.#rings, start, ([queries, dResult, statistic, deltas], source) => {
      const places = [this.#placesOf(tokens, source), this.#placesOf(tokens, this.#context)];
      const operands = [dResult!, queries!, k, v, statistic!, deltas!, ...places, offsets];
      const node = createNode("attention_block_gradient", [...operands, ...own], {
        ...attributes,
        fraction: this.#fraction(tokens, source, attributes, true),
        sums: own.length === 0 ? "none" : "keys",
      });
      own = [1, 2].map((index) => ({ node, index }));
      return [{ node, index: 0 }];
    });
    return [dQ!, ...own];
  }

  #passesQueries({ q, k, logsumexp }: Around): boolean {
    const { backward } = this.#plan;
    if (backward !== "least") return backward === "queries";
    const bytes = bytesPerElement(dtypeOf(q));
    const keys = 2 * maximumElements(shapeOf(k)) * (bytes + 4);
    const queries = maximumElements(shapeOf(q)) * (2 * bytes + 4) + 8 * maximumElements(shapeOf(logsumexp));
    return queries < keys;
  }

  get #context(): number {
    return this.#own.outer * this.#plan.grid.inner + this.#own.inner;
  }

  /** The ranks of the sequence axis whose tokens are together at a place of the rings, once heads are exchanged. */
  #sharers(context: number): number[] {
    const { grid } = this.#plan;
    const place = { outer: Math.floor(context / grid.inner), inner: context % grid.inner };
    return Array.from({ length: grid.head }, (_, head) => sequenceIndex(grid, { ...place, head }));
  }

  /** The places of the tokens at a place of the rings: i32 [tokens x head]. */
  #placesOf(tokens: Dimension, context: number): Value {
    const key = JSON.stringify([tokens, context]);
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    const { head, placement } = this.#plan.grid;
    const [ranks, rings] = [this.#ranks, this.#ranks / head];
    const all = apply("iota", [], { axis: 0, shape: [scaled(tokens, ranks)], dtype: "i32" });
    // A row for each rank of the sequence axis; those of one place of the rings are a plane of the grid.
    const rows =
      this.#plan.order === "contiguous"
        ? reshape(all, [ranks, tokens])
        : transpose(reshape(all, [tokens, ranks]), [1, 0]);
    const headFirst = placement === "head_first";
    const plane = apply("slice", [reshape(rows, [...(headFirst ? [rings, head] : [head, rings]), tokens])], {
      starts: headFirst ? [context, 0, 0] : [0, context, 0],
      sizes: headFirst ? [1, head, tokens] : [head, 1, tokens],
    });
    const places = reshape(plane, [scaled(tokens, head)]);
    this.#places.set(key, places);
    return places;
  }

  /** How many pairs of this rank's queries and another's keys, or the other way round, see each other in one sequence. */
  #fraction(tokens: Dimension, other: number, attributes: AttentionAttributes, turned = false): number {
    const all = upperBound(tokens) * this.#ranks;
    const gather = (context: number): Int32Array => {
      const parts = this.#sharers(context).map((index) => [
        ...placesOf(this.#plan.order, all, index, this.#ranks),
      ]);
      return Int32Array.from(parts.flat());
    };
    const [own, others] = [gather(this.#context), gather(other)];
    const pairs = turned ? visiblePairs(others, own, attributes) : visiblePairs(own, others, attributes);
    return pairs / Math.max(1, own.length * others.length);
  }

  /** Tokens of all ranks that split heads, with this rank's share of the heads. */
  #headsForTokens(q: Value, k: Value, v: Value): [Value, Value, Value] {
    const parts = this.#head?.size ?? 1;
    const [heads, groups] = [shapeOf(q)[1] as number, shapeOf(k)[1] as number];
    if (heads % parts !== 0) {
      throw new ShapeError("heads_not_divisible", "the attention heads do not divide among the ranks", {
        where: "sequence_parallel.ulysses_degree",
        expected: `a number that divides ${heads} heads`,
        received: String(parts),
      });
    }
    const repeats = leastCommonMultiple(groups, parts) / groups;
    const operands = [q, repeatGroups(k, repeats), repeatGroups(v, repeats)];
    return this.#exchange(operands, 1, 0) as [Value, Value, Value];
  }

  #tokensForHeads(values: readonly Value[]): readonly Value[] {
    return this.#exchange(values, 0, 1);
  }

  #exchange(values: readonly Value[], split: number, concatenate: number): readonly Value[] {
    if (this.#head === undefined) return values;
    const node = createNode("all_to_all", values, { group: this.#head, split, concatenate });
    return values.map((_, index) => ({ node, index }));
  }

  /** The gradient of keys or values of which each was there several times. */
  #sumRepeats(gradient: Value, shape: Shape): Value {
    const [tokens, groups, size] = shape as [Dimension, number, number];
    const copies = shapeOf(gradient)[1] as number;
    if (copies === groups) return gradient;
    const parted = reshape(gradient, [tokens, groups, copies / groups, size]);
    return apply("reduce", [parted], { reduction: "sum", axes: [2], keep: false });
  }
}

interface Around extends Attended {
  readonly gradient: Value;
  readonly delta: Value;
  /** Tokens that a rank holds. */
  readonly tokens: Dimension;
  readonly offsets: Value;
  readonly attributes: AttentionAttributes;
}

/** [tokens, groups, size] with each group several times, one copy beside the other. */
function repeatGroups(value: Value, repeats: number): Value {
  if (repeats === 1) return value;
  const [tokens, groups, size] = shapeOf(value) as [Dimension, number, number];
  const wide = apply("broadcast", [reshape(value, [tokens, groups, 1, size])], {
    shape: [tokens, groups, repeats, size],
  });
  return reshape(wide, [tokens, groups * repeats, size]);
}

function scaled(dimension: Dimension, factor: number): Dimension {
  return typeof dimension === "number"
    ? dimension * factor
    : { ...dimension, scale: dimension.scale * factor };
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return (a / x) * b;
}
