import { expect, test } from "vitest";
import { ConfigError } from "../base/errors.ts";
import { compareConfig } from "./compare_config.ts";

const saved = {
  model: { hidden_size: 512, layers: [1, 2] },
  optimizer: { type: "AdamW", params: { lr: 0.001, betas: [0.9, 0.95] } },
  logging: { every: 10, file: "a" },
  seed: 1,
};

test("the same config resumes, whatever the order of its keys", () => {
  const current = Object.fromEntries(Object.entries(structuredClone(saved)).toReversed());
  expect(() => compareConfig(saved, current)).not.toThrow();
  expect(() => compareConfig(saved, { ...current, absent: undefined })).not.toThrow();
});

test("each key that contradicts is listed with both values", () => {
  const current = {
    model: { hidden_size: 256, layers: [1, 2, 3] },
    optimizer: { type: "AdamW", params: { betas: [0.9, 0.99] } },
    logging: "none",
    seed: 1,
    toString: "x",
  };
  expect(() => compareConfig(saved, current)).toThrow(ConfigError);
  expect(() => compareConfig(saved, current)).toThrow(
    [
      "the config contradicts the checkpoint that the run resumes from, in 6 keys",
      "    model.hidden_size: 512 in the checkpoint, 256 in the config",
      "    model.layers: [1,2] in the checkpoint, [1,2,3] in the config",
      "    optimizer.params.lr: 0.001 in the checkpoint, not set in the config",
      "    optimizer.params.betas[1]: 0.95 in the checkpoint, 0.99 in the config",
      '    logging: {"every":10,"file":"a"} in the checkpoint, "none" in the config',
      '    toString: not set in the checkpoint, "x" in the config',
      "  to do:    set these keys as they were, or start a new run in another output_dir",
    ].join("\n"),
  );
});

test("ignored paths and what is below them may differ, and only those", () => {
  const current = { ...saved, logging: { every: 1, file: "b" }, seed: 2 };
  expect(() => compareConfig(saved, current, ["logging", "seed"])).not.toThrow();
  expect(() => compareConfig(saved, current, ["logging.every", "seed"])).toThrow(
    /in 1 key\n +logging\.file: "a"/,
  );
  expect(() => compareConfig(saved, current, ["log", "seed"])).toThrow(/logging\.every[\s\S]*logging\.file/);
});
