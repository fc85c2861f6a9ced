import { ConfigError } from "../base/errors.ts";
import type { RopeScaling } from "../nn/rotary.ts";
import type { ConfigJson } from "./family.ts";

/** Reads the keys of a `config.json` and collects everything wrong with them. */
export class ConfigReader {
  readonly #config: ConfigJson;
  readonly #where: string;
  readonly #problems: string[] = [];

  constructor(config: ConfigJson, where: string) {
    this.#config = config;
    this.#where = where;
  }

  /** A positive integer. */
  count(key: string, fallback?: number): number {
    const value = this.#present(key) ? this.#config[key] : fallback;
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value;
    this.#problems.push(
      `${key}: expected a positive integer, received ${JSON.stringify(value) ?? "nothing"}`,
    );
    return 1;
  }

  /** A positive number. */
  number(key: string, fallback?: number): number {
    const value = this.#present(key) ? this.#config[key] : fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    this.#problems.push(`${key}: expected a positive number, received ${JSON.stringify(value) ?? "nothing"}`);
    return 1;
  }

  /** A list of positive numbers. */
  numbers(key: string): number[] {
    const value = this.#config[key];
    const isList = Array.isArray(value) && value.every((item) => Number.isFinite(item) && item > 0);
    if (isList) return value;
    this.#problems.push(
      `${key}: expected a list of positive numbers, received ${JSON.stringify(value) ?? "nothing"}`,
    );
    return [];
  }

  /** true or false. */
  flag(key: string, fallback: boolean): boolean {
    const value = this.#present(key) ? this.#config[key] : fallback;
    if (typeof value === "boolean") return value;
    this.#problems.push(`${key}: expected true or false, received ${JSON.stringify(value)}`);
    return fallback;
  }

  /** One of several words. */
  choice<Choice extends string>(key: string, choices: readonly Choice[], fallback: Choice): Choice {
    const value = this.#present(key) ? this.#config[key] : fallback;
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    this.#problems.push(`${key}: expected ${choices.join(" or ")}, received ${JSON.stringify(value)}`);
    return fallback;
  }

  /** Rotary base and scaling, from `rope_theta` and `rope_scaling`, or from `rope_parameters`. */
  rotary(defaultTheta: number): { theta: number; scaling: RopeScaling } {
    const parameters = this.#object("rope_parameters");
    const scaling = this.#object("rope_scaling") ?? parameters;
    const nested =
      parameters === undefined ? undefined : new ConfigReader(parameters, `${this.#where}: rope_parameters`);
    const theta = nested?.number("rope_theta", defaultTheta) ?? this.number("rope_theta", defaultTheta);
    nested?.finish();
    if (scaling === undefined) return { theta, scaling: { type: "none" } };
    const inner = new ConfigReader(scaling, `${this.#where}: rope_scaling`);
    const type = scaling.rope_type ?? scaling.type ?? "default";
    let result: RopeScaling = { type: "none" };
    if (type === "linear") result = { type, factor: inner.number("factor") };
    else if (type === "llama3") {
      result = {
        type,
        factor: inner.number("factor"),
        lowFrequencyFactor: inner.number("low_freq_factor"),
        highFrequencyFactor: inner.number("high_freq_factor"),
        originalPositions: inner.number("original_max_position_embeddings"),
      };
    } else if (type === "longrope") {
      result = { type: "factors", factors: inner.numbers("short_factor") };
      if (JSON.stringify(scaling.long_factor) !== JSON.stringify(scaling.short_factor)) {
        inner.problem("longrope: short_factor and long_factor must be the same here");
      }
      if (inner.number("attention_factor", 1) !== 1) inner.problem("longrope: attention_factor must be 1");
    } else if (type !== "default") {
      this.#problems.push(
        `rope_scaling: expected type default, linear, llama3 or longrope, received ${JSON.stringify(type)}`,
      );
    }
    inner.finish();
    return { theta, scaling: result };
  }

  /** Whether a key is there and not null. */
  has(key: string): boolean {
    return this.#present(key);
  }

  /** Adds a problem that spans keys. */
  problem(text: string): void {
    this.#problems.push(text);
  }

  /** @throws ConfigError with every problem found. */
  finish(): void {
    if (this.#problems.length === 0) return;
    throw new ConfigError(
      "bad_model_config",
      `the model's config cannot be used: ${this.#problems.join("; ")}`,
      {
        where: this.#where,
      },
    );
  }

  #present(key: string): boolean {
    return this.#config[key] !== undefined && this.#config[key] !== null;
  }

  #object(key: string): ConfigJson | undefined {
    const value = this.#config[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value === "object" && !Array.isArray(value)) return value as ConfigJson;
    this.#problems.push(`${key}: expected an object, received ${JSON.stringify(value)}`);
    return undefined;
  }
}
