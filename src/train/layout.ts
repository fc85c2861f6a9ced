import type { TensorData } from "../base/dtype.ts";
import { ConfigError } from "../base/errors.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { LocalParameter } from "../parallel/local_parameter.ts";
import { Mesh } from "../parallel/mesh.ts";
import {
  keptElements,
  ownStart,
  type PartitionedParameter,
  partitionParameters,
} from "../parallel/zero/partition.ts";
import { defaultZeroSettings, type ZeroSettings } from "../parallel/zero/settings.ts";

/** Parameters that are updated alike. */
export type DecayGroup = "decay" | "no_decay";

/** A parameter in the flat buffers: the first element of what this rank keeps of it in each. */
export interface PlacedParameter extends PartitionedParameter {
  /** Undefined for a frozen parameter. */
  readonly decayGroup: DecayGroup | undefined;
  readonly parameterStart: number;
  /** 0 for a frozen parameter, which has neither. */
  readonly gradientStart: number;
  readonly statesStart: number;
}

/** Elements that one rank updates in one go: parameters, gradients and states each lie in one piece. */
export interface Sweep {
  readonly name: string;
  readonly decayGroup: DecayGroup;
  readonly parameterStart: number;
  readonly gradientStart: number;
  readonly statesStart: number;
  readonly length: number;
  /** The parameter whose own part this is, where the rank keeps it whole and must get the other parts. */
  readonly publishes: PlacedParameter | undefined;
}

/** What a rank keeps of every parameter, and where in its flat float32 buffers. */
export interface ParameterLayout {
  readonly parameters: ReadonlyMap<string, PlacedParameter>;
  /** Elements of the buffers, padding included; that of states is one optimizer state's. */
  readonly elements: { readonly parameters: number; readonly gradients: number; readonly states: number };
  readonly sweeps: readonly Sweep[];
  readonly decayGroups: readonly DecayGroup[];
  readonly frozen: ReadonlySet<string>;
}

/** How a model is split over ranks: what this one holds of it, and how its states are partitioned. */
export interface ModelSplit {
  readonly mesh: Mesh;
  readonly locals: readonly LocalParameter[];
  readonly zero: ZeroSettings;
}

/** A model that one rank holds alone, or all ranks whole: they differ in their data. */
export function wholeModel(
  parameters: ParameterTable,
  mesh = new Mesh({}, 0),
  zero = defaultZeroSettings,
): ModelSplit {
  const locals = [...parameters.values()].map(({ name, shape }): LocalParameter => {
    const box = { starts: shape.map(() => 0), sizes: shape };
    return { name, shape, box, reducedOver: ["data"], replicatedOver: [] };
  });
  return { mesh, locals, zero };
}

/** How buffers are laid out for states on disk. */
export interface LayoutOptions {
  /** Parameters with at least so many elements start at multiples of it. */
  readonly alignment?: number;
  /** Most elements of a sweep: a sub-group. */
  readonly longestSweep?: number;
}

/**
 * Lays parameters out one after another: those with weight decay, those without, the frozen ones; within each the
 * partitioned ones first, so that an optimizer updates them in one sweep.
 * @throws ConfigError where nothing is left to train.
 */
export function layOutParameters(
  parameters: ParameterTable,
  decays: (name: string) => boolean,
  isFrozen: (name: string) => boolean,
  split = wholeModel(parameters),
  { alignment = 1, longestSweep = Infinity }: LayoutOptions = {},
): ParameterLayout {
  const { locals, mesh, zero } = split;
  if ([...parameters.keys()].every(isFrozen)) {
    throw new ConfigError("nothing_to_train", "every parameter of the model is frozen", {
      where: "frozen_parameters",
      hint: "leave at least one parameter out of the patterns",
    });
  }
  const placed = new Map<string, PlacedParameter>();
  const elements = { parameters: 0, gradients: 0, states: 0 };
  const place = (parameter: PartitionedParameter, decayGroup: DecayGroup | undefined): void => {
    if (keptElements(parameter, parameter.parameter) >= alignment) {
      for (const kind of ["parameters", "gradients", "states"] as const)
        elements[kind] = Math.ceil(elements[kind] / alignment) * alignment;
    }
    placed.set(parameter.local.name, {
      ...parameter,
      decayGroup,
      parameterStart: elements.parameters,
      gradientStart: decayGroup === undefined ? 0 : elements.gradients,
      statesStart: decayGroup === undefined ? 0 : elements.states,
    });
    elements.parameters += keptElements(parameter, parameter.parameter);
    if (decayGroup === undefined) return;
    elements.gradients += keptElements(parameter, parameter.gradient);
    elements.states += keptElements(parameter, parameter.states);
  };
  const partitioned = partitionParameters(locals, mesh, zero, isFrozen);
  const inOrder = [
    ...partitioned.filter(({ parameter }) => parameter === "part"),
    ...partitioned.filter(({ parameter }) => parameter === "whole"),
  ];
  const groupOf = ({ trained, local }: PartitionedParameter): DecayGroup | undefined =>
    trained ? (decays(local.name) ? "decay" : "no_decay") : undefined;
  for (const group of ["decay", "no_decay", undefined] as const) {
    for (const parameter of inOrder) if (groupOf(parameter) === group) place(parameter, group);
  }
  return {
    parameters: placed,
    elements,
    sweeps: sweepsOf([...placed.values()], longestSweep),
    decayGroups: (["decay", "no_decay"] as const).filter((group) =>
      partitioned.some((parameter) => groupOf(parameter) === group),
    ),
    frozen: new Set(partitioned.filter(({ trained }) => !trained).map(({ local }) => local.name)),
  };
}

/** What this rank updates of one parameter, named after it; undefined for a frozen one. */
export function sweepOf(parameter: PlacedParameter): Sweep | undefined {
  const { decayGroup, states: share, local } = parameter;
  if (decayGroup === undefined) return undefined;
  const skipped = (of: PlacedParameter["parameter"]): number =>
    share === "part" ? ownStart(parameter, of) : 0;
  return {
    name: local.name,
    decayGroup,
    parameterStart: parameter.parameterStart + skipped(parameter.parameter),
    gradientStart: parameter.gradientStart + skipped(parameter.gradient),
    statesStart: parameter.statesStart,
    length: keptElements(parameter, share),
    publishes: share === "part" && parameter.parameter === "whole" ? parameter : undefined,
  };
}

/** What this rank updates of these parameters, joined where it lies in one piece in every buffer. */
export function sweepsOf(parameters: readonly PlacedParameter[], longest: number): Sweep[] {
  const sweeps: Sweep[] = [];
  for (const parameter of parameters) {
    const own = sweepOf(parameter);
    if (own === undefined) continue;
    const next: Sweep = { ...own, name: String(sweeps.length) };
    const last = sweeps.at(-1);
    if (last !== undefined && follows(last, next)) {
      sweeps[sweeps.length - 1] = { ...last, length: last.length + next.length };
    } else sweeps.push(next);
  }
  if (longest === Infinity) return sweeps;
  return sweeps
    .flatMap((sweep) => cutSweep(sweep, longest))
    .map((sweep, index) => ({ ...sweep, name: String(index) }));
}

/** Sub-groups of a sweep, which are updated one by one; what other ranks wait for stays in one piece. */
function cutSweep(sweep: Sweep, longest: number): Sweep[] {
  if (sweep.publishes !== undefined) return [sweep];
  const { parameterStart, gradientStart, statesStart } = sweep;
  return Array.from({ length: Math.ceil(sweep.length / longest) }, (_, index) => ({
    ...sweep,
    parameterStart: parameterStart + index * longest,
    gradientStart: gradientStart + index * longest,
    statesStart: statesStart + index * longest,
    length: Math.min(longest, sweep.length - index * longest),
  }));
}

function follows(last: Sweep, next: Sweep): boolean {
  return (
    last.publishes === undefined &&
    next.publishes === undefined &&
    last.decayGroup === next.decayGroup &&
    last.parameterStart + last.length === next.parameterStart &&
    last.gradientStart + last.length === next.gradientStart &&
    last.statesStart + last.length === next.statesStart
  );
}

/** Bytes of all buffers given. */
export function totalBytes(buffers: Iterable<TensorData>): number {
  let bytes = 0;
  for (const buffer of buffers) bytes += buffer.byteLength;
  return bytes;
}
