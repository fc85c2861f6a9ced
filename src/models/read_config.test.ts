import { expect, test } from "vitest";
import { ParameterSpace } from "../nn/parameters.ts";
import { rotaryFrequencies } from "../nn/rotary.ts";
import { familyOf } from "./families.ts";
import { ConfigReader } from "./read_config.ts";

const longrope = (change: object): object => ({
  rope_theta: 100,
  rope_scaling: {
    rope_type: "longrope",
    short_factor: [1, 4],
    long_factor: [1, 4],
    attention_factor: 1,
    ...change,
  },
});

test("longrope with one list of factors divides each frequency by its own", () => {
  const { theta, scaling } = new ConfigReader({ ...longrope({}) }, "config.json").rotary(10_000);
  // theta^0 / 1 and theta^(-2/4) / 4, by hand.
  expect(rotaryFrequencies(4, theta, scaling)).toEqual([1, 0.025]);
});

test.each([
  [{ long_factor: [1, 2] }, /short_factor and long_factor must be the same/],
  [{ attention_factor: 1.2 }, /attention_factor must be 1/],
  [{ short_factor: [1, -1] }, /short_factor: expected a list of positive numbers, received \[1,-1\]/],
  [{ short_factor: "many" }, /short_factor: expected a list of positive numbers, received "many"/],
  [{ rope_type: "dynamic" }, /expected type default, linear, llama3 or longrope, received "dynamic"/],
])("%j is refused", (change, message) => {
  const reader = new ConfigReader({ ...longrope(change) }, "config.json");
  expect(() => {
    reader.rotary(10_000);
    reader.finish();
  }).toThrow(message);
});

test("factors that are not one for each pair of a head are refused", () => {
  const config = {
    ...longrope({}),
    ...{ model_type: "llama", hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 1 },
    ...{ intermediate_size: 8, vocab_size: 8 },
  };
  const build = (): unknown =>
    familyOf(config, "config.json").build(config, ParameterSpace.create("f32"), "config.json");
  expect(build).toThrow(/rope_scaling: expected 8 factors, received 2/);
});
