/**
 * Where in the model recording stands. Recording is synchronous, so one stack serves; it only labels nodes
 * (for errors, traces and recomputation) and never changes what they compute.
 */
export interface Scope {
  /** The module, such as `model.layers.3.mlp`; empty outside of any. */
  readonly name: string;
  /** Which repeated block of the model this is, counted from 0; undefined outside of blocks. */
  readonly block: number | undefined;
  /** Whether the nodes compute the model or its gradients. */
  readonly phase: "forward" | "backward";
}

const outermost: Scope = { name: "", block: undefined, phase: "forward" };
const stack: Scope[] = [];

/** The current scope. */
export function currentScope(): Scope {
  return stack.at(-1) ?? outermost;
}

/** Runs `body` in a given scope. */
export function inScope<Result>(scope: Scope, body: () => Result): Result {
  stack.push(scope);
  try {
    return body();
  } finally {
    stack.pop();
  }
}

/** Runs `body` in the scope named `name` below the current one. */
export function withScope<Result>(name: string, body: () => Result): Result {
  const parent = currentScope();
  return inScope({ ...parent, name: parent.name === "" ? name : `${parent.name}.${name}` }, body);
}

/** Runs `body` as block `index` of the model: the unit of activation recomputation. */
export function inBlock<Result>(index: number, body: () => Result): Result {
  return inScope({ ...currentScope(), block: index }, body);
}
