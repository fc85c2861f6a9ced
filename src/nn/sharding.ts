import { ShapeError } from "../base/errors.ts";
import { formatShape } from "../base/shape.ts";
import { annotate, type ShardingSpecification } from "../graph/annotations.ts";
import { derive, type Tensor } from "../tensor/tensor.ts";

/**
 * The same tensor, laid out over the ranks' mesh as said from here on (Lepikhin et al., "GShard", arXiv 2006.16668):
 * `shard(x, ["sequence", null])` cuts the first of two dimensions. A few of these are enough: what lies between
 * follows. Without ranks it changes nothing.
 * @param specification for each dimension an axis of the mesh, several from the outermost on, or null for none
 * @throws ShapeError where it does not name every dimension.
 */
export function shard(x: Tensor, specification: ShardingSpecification): Tensor {
  if (specification.length !== x.shape.length) {
    throw new ShapeError("bad_sharding", "a sharding must name every dimension of its tensor", {
      expected: `${x.shape.length} entries for ${formatShape(x.shape)}`,
      received: JSON.stringify(specification),
    });
  }
  return derive(annotate(x.value, specification), x);
}

/** The same tensor, whole on every rank from here on. */
export function replicate(x: Tensor): Tensor {
  return shard(
    x,
    x.shape.map(() => null),
  );
}

/** The same tensor with one dimension cut by an axis of the mesh from here on. */
export function split(x: Tensor, dimension: number, axis: string): Tensor {
  return shard(
    x,
    x.shape.map((_, position) => (position === dimension ? axis : null)),
  );
}

/**
 * The same tensor with another dimension cut over the sequence axis from here on: one exchange between the stages of a
 * model that attends along one dimension after the other, such as space and time, instead of several around each
 * attention (Zhao et al., "DSP: Dynamic Sequence Parallelism for Multi-Dimensional Transformers", arXiv 2403.10266).
 */
export function dynamicSwitch(x: Tensor, dimension: number): Tensor {
  return split(x, dimension, "sequence");
}
