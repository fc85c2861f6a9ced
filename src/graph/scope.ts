/**
 * The place in the model that is being recorded, such as `model.layers.3.mlp`. Recording is synchronous,
 * so one stack serves; it only labels nodes and never changes what they compute.
 */
const stack: string[] = [];

/** The full name of the current scope; empty outside of any. */
export function currentScope(): string {
  return stack.at(-1) ?? "";
}

/** Runs `body` in the scope named `name`: below the current one, or from the top with `absolute`. */
export function withScope<Result>(name: string, body: () => Result, absolute = false): Result {
  const parent = currentScope();
  stack.push(absolute || parent === "" ? name : `${parent}.${name}`);
  try {
    return body();
  } finally {
    stack.pop();
  }
}
