import { ConfigError } from "../base/errors.ts";
import { nearest } from "../base/suggest.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";
import { gpt2 } from "./gpt2/family.ts";
import { llama } from "./llama/family.ts";
import { mistral } from "./mistral/family.ts";
import { qwen2 } from "./qwen2/family.ts";
import { qwen3 } from "./qwen3/family.ts";

/** Every family, by `model_type`. */
export const modelFamilies: ReadonlyMap<string, ModelFamily> = new Map(
  [llama, mistral, qwen2, qwen3, gpt2].map((family) => [family.type, family]),
);

/** The family of a `config.json`. @throws ConfigError with the known types where `model_type` is another. */
export function familyOf(config: ConfigJson, where: string): ModelFamily {
  const type = config.model_type;
  const family = typeof type === "string" ? modelFamilies.get(type) : undefined;
  if (family !== undefined) return family;
  const guess = typeof type === "string" ? nearest(type, modelFamilies.keys()) : undefined;
  throw new ConfigError("unknown_model_type", "this kind of model is not supported", {
    where,
    expected: `model_type: ${[...modelFamilies.keys()].join(", ")}`,
    received: JSON.stringify(type) ?? "no model_type",
    ...(guess === undefined ? {} : { hint: `did you mean "${guess}"?` }),
  });
}
