import type { TensorData } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import { leaf } from "../graph/build.ts";
import { buildGraph, typeOf } from "../graph/graph.ts";
import { formatType } from "../graph/rules/shape.ts";
import type { CompileOptions, Executable } from "../runtime/backend.ts";
import { makeTensor, Tensor } from "./tensor.ts";

interface Compiled {
  readonly executable: Executable;
  readonly outputs: readonly Tensor[];
  /** Data of tensors that the function took from around it. */
  readonly captured: Readonly<Record<string, TensorData>>;
}

/**
 * Records `body` once for each combination of input shapes and dtypes, plans it as one program, and runs that
 * program from then on. Concrete tensors that `body` uses from around it become part of the program.
 */
export function compile(
  body: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  options: CompileOptions = {},
): (...inputs: Tensor[]) => Promise<Tensor[]> {
  const programs = new Map<string, Compiled>();
  return async (...inputs) => {
    const session = inputs.find((input) => input.session !== undefined)?.session;
    if (session === undefined) {
      throw new ShapeError("no_data", "a compiled function takes tensors with data", {
        hint: "make its arguments with tensor([...])",
      });
    }
    const key = inputs.map((input) => formatType(typeOf(input.value))).join(" ");
    let compiled = programs.get(key);
    if (compiled === undefined) {
      const symbols = inputs.map(
        (input, index) => new Tensor(leaf(`argument ${index}`, "input", input.shape, input.dtype)),
      );
      const result = body(...symbols);
      const outputs = result instanceof Tensor ? [result] : result;
      const named = outputs.map((output, index) => ({ name: `result ${index}`, value: output.value }));
      const graph = buildGraph(body.name === "" ? "function" : body.name, named);
      const captured = session.heldBy(graph);
      compiled = { executable: session.backend.compile(graph, options), outputs, captured };
      programs.set(key, compiled);
    }
    const bindings: Record<string, TensorData> = { ...compiled.captured };
    for (const [index, input] of inputs.entries()) bindings[`argument ${index}`] = await input.data();
    const results = compiled.outputs.map((output, index) => {
      const data = session.backend.allocate(output.dtype, elementCount(output.shape as number[]));
      bindings[`result ${index}`] = data;
      return makeTensor(session, data, { dtype: output.dtype, shape: output.shape as number[] });
    });
    await compiled.executable.run(bindings);
    return results;
  };
}
