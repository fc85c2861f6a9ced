import { gradients } from "../graph/gradient.ts";
import { derive, type Tensor } from "./tensor.ts";

/**
 * The function that computes the gradient of a scalar function with respect to each of its arguments.
 * `grad(grad(f))` works where the ops of f allow it.
 */
export function grad(body: (...inputs: Tensor[]) => Tensor): (...inputs: Tensor[]) => Tensor[] {
  return (...inputs) => valueAndGrad(body)(...inputs).gradients;
}

/** The function that computes a scalar and its gradient with respect to each argument. */
export function valueAndGrad(
  body: (...inputs: Tensor[]) => Tensor,
): (...inputs: Tensor[]) => { value: Tensor; gradients: Tensor[] } {
  return (...inputs) => {
    const value = body(...inputs);
    const results = gradients(
      value.value,
      inputs.map((input) => input.value),
    );
    return { value, gradients: results.map((gradient) => derive(gradient, value, ...inputs)) };
  };
}
