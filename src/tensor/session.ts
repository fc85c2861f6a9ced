import type { DType, TensorData } from "../base/dtype.ts";
import { elementCount } from "../base/shape.ts";
import { leaf } from "../graph/build.ts";
import { buildGraph, type Graph, type Node, shapeOf, typeOf, type Value } from "../graph/graph.ts";
import type { Backend } from "../runtime/backend.ts";

/**
 * Holds the data of eager tensors and computes them with one backend. A tensor belongs to the session that
 * made it; tensors of different sessions do not mix.
 */
export class Session {
  readonly #backend: () => Backend;
  readonly #held = new WeakMap<Node, TensorData>();
  #count = 0;

  /** @param backend chosen at the first computation, so that making tensors costs nothing. */
  constructor(backend: () => Backend) {
    this.#backend = backend;
  }

  /** The backend that computes this session's tensors. */
  get backend(): Backend {
    return this.#backend();
  }

  /** A leaf for data that exist. */
  hold(data: TensorData, shape: readonly number[], dtype: DType): Value<"leaf"> {
    const value = leaf(`tensor ${this.#count++}`, "input", shape, dtype);
    this.#held.set(value.node, data);
    return value;
  }

  /** The data of a leaf, or undefined where a value has not been computed. */
  dataOf(value: Value): TensorData | undefined {
    return this.#held.get(value.node);
  }

  /** The data of every leaf of a graph that holds some, by name. */
  heldBy(graph: Graph): Record<string, TensorData> {
    const bindings: Record<string, TensorData> = {};
    for (const node of graph.nodes) {
      const data = this.#held.get(node);
      if (node.op === "leaf" && data !== undefined) bindings[node.attributes.name] = data;
    }
    return bindings;
  }

  /** Computes values whose leaves all hold data. */
  async compute(values: readonly Value[]): Promise<TensorData[]> {
    const outputs = values.map((value, index) => ({ name: `output ${index}`, value }));
    const graph = buildGraph("eager", outputs);
    const bindings: Record<string, TensorData> = this.heldBy(graph);
    const results = values.map((value, index) => {
      const data = this.backend.allocate(typeOf(value).dtype, elementCount(shapeOf(value) as number[]));
      bindings[`output ${index}`] = data;
      return data;
    });
    const executable = this.backend.compile(graph);
    try {
      await executable.run(bindings);
    } finally {
      executable.dispose();
    }
    return results;
  }
}
