import type { CostRule } from "../cost.ts";
import { perInputElement } from "./common.ts";

/** Cost of sampling: the largest logit, and one exponential, its argument and its sum an element. */
export const samplingCosts: { readonly sample: CostRule<"sample"> } = {
  sample: perInputElement(4),
};
