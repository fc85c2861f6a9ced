import { annotationOf, type ShardingTable } from "../../graph/annotations.ts";
import { type Graph, type GraphOutput, shapeOf } from "../../graph/graph.ts";
import type { LocalParameter } from "../local_parameter.ts";
import type { Mesh, MeshAxis } from "../mesh.ts";
import { type Layout, replicated, withPartial } from "./layout.ts";
import { exposeEpilogues, repeatGroups, scaleSymbol } from "./prepare.ts";
import { type ShardedGraph, shardGraph } from "./shard_graph.ts";
import { boxOf, layoutOf, parameterLayout } from "./specification.ts";

/** The axes over which shapes are cut here; the others have passes of their own. */
const cuttingAxes = ["sequence", "tensor"] as const satisfies readonly MeshAxis[];

/** A training graph as one rank runs it. */
export interface ShardedTraining extends ShardedGraph {
  /**
   * Batches are padded to a multiple of so many tokens, and the symbol `tokens` counts groups of so many: a program
   * over 8 tokens with a multiple of 4 runs with `tokens` 2.
   */
  readonly tokenMultiple: number;
}

/** How attention gets the tokens that other ranks of the sequence axis have. */
export interface ShardingMode {
  /**
   * `heads`: it exchanges tokens for heads (Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509). `tokens`: it
   * stays cut by tokens, and what runs afterwards makes a ring of it.
   */
  readonly attention: "heads" | "tokens";
  /**
   * Whether norms and what else lies between the matrices may be cut by tokens over `tensor` (Korthikanti et al.,
   * arXiv 2205.05198): true by default.
   */
  readonly cutsTokensOverTensor?: boolean;
}

/** Parameters of a model by name: what sharding needs of them. */
export type ParameterShapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/**
 * Shards a graph of training or evaluation, recorded in whole shapes over packed tokens, over `tensor` and `sequence`.
 * Every output comes out as a term of a sum over `sequence`, gradients as well as the loss, and summed over `tensor`;
 * an output with a target that is named `gradient NAME` lies as the parameter NAME.
 * @throws ConfigError where heads or parameters do not divide among the ranks.
 */
export function shardTraining(
  recorded: Graph,
  mesh: Mesh,
  parameters: ParameterShapes,
  table: ShardingTable,
  mode: ShardingMode = { attention: "heads" },
): ShardedTraining {
  const { sizes } = mesh;
  const tokenMultiple = sizes.sequence * sizes.tensor;
  const exposed = exposeEpilogues(scaleSymbol(recorded, "tokens", tokenMultiple));
  const cutsTokens = mode.attention === "tokens";
  const graph = repeatGroups(exposed, cutsTokens ? sizes.tensor : tokenMultiple);
  const layouts = new Map(
    [...parameters].map(([name, { shape }]) => [name, parameterLayout(name, shape, table, sizes)]),
  );
  const summedLater = sizes.sequence > 1 ? (["sequence"] as const) : [];
  const outputLayout = (output: GraphOutput): Layout => {
    const name = /^gradient (.*)$/.exec(output.name)?.[1];
    const layout = name === undefined ? undefined : layouts.get(name);
    return withPartial(layout ?? replicated(shapeOf(output.value).length), summedLater);
  };
  const sharded = shardGraph(
    graph,
    mesh,
    {
      leaf: (node) => {
        const { name, kind, shape } = node.attributes;
        return kind === "input" ? undefined : (layouts.get(name) ?? replicated(shape.length));
      },
      output: outputLayout,
      annotated: (node) => {
        const specification = annotationOf(node);
        if (specification === undefined) return undefined;
        const where = node.scope.name === "" ? "a sharding annotation" : node.scope.name;
        return layoutOf(specification, node.outputs[0]!.shape.length, sizes, where);
      },
    },
    {
      axes: cuttingAxes,
      cutsAttentionTokens: cutsTokens,
      cutsTokensOverTensor: mode.cutsTokensOverTensor ?? true,
    },
  );
  return { ...sharded, tokenMultiple };
}

/**
 * What a rank holds of every parameter of a model.
 * @throws ConfigError where one does not divide among the ranks.
 */
export function localParameters(
  mesh: Mesh,
  parameters: ParameterShapes,
  table: ShardingTable,
): LocalParameter[] {
  const { sizes } = mesh;
  return [...parameters].map(([name, { shape }]): LocalParameter => {
    const layout = parameterLayout(name, shape, table, sizes);
    const whole = sizes.tensor > 1 && !layout.dimensions.flat().includes("tensor");
    return {
      name,
      shape,
      box: boxOf(shape, layout, mesh),
      reducedOver: sizes.sequence > 1 ? ["data", "sequence"] : ["data"],
      replicatedOver: whole ? ["tensor"] : [],
    };
  });
}
