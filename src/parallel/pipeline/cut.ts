import { removeDeadCode } from "../../compiler/passes/dead_code.ts";
import { fuseLossIntoGradient } from "../../compiler/passes/fuse_loss.ts";
import { type RecomputePolicy, recomputeActivations } from "../../compiler/passes/recompute.ts";
import { fill } from "../../graph/build.ts";
import type { AnyNode, Graph, GraphOutput } from "../../graph/graph.ts";
import { type ExtractedProgram, ProgramExtractor, type ProgramKind } from "./extract.ts";
import type { Partition } from "./partition.ts";
import { routeValues, type StageRoutes } from "./routes.ts";
import { assignSlots, backwardSlot } from "./slots.ts";
import { type SummedOutput, termsOfOutputs } from "./terms.ts";

/** One program of a stage. */
export interface StageProgram {
  /** Its leaves are those of the whole graph and stage values; so are its results. */
  readonly graph: Graph;
  /** The stage values that it reads and those that it makes, by name. */
  readonly reads: readonly string[];
  readonly writes: readonly string[];
}

/**
 * What one stage runs for a micro-batch, what comes with it from its neighbours and goes on to them (names of stage
 * values, in order), and what it holds between its programs. A program without work is left out.
 */
export interface PipelineStage extends StageRoutes {
  readonly stage: number;
  readonly forward?: StageProgram;
  /** The whole backward pass; where it is cut in two, the gradients of activations alone. */
  readonly backward?: StageProgram;
  /** The gradients of parameters, where backward is cut in two. */
  readonly weightGradient?: StageProgram;
  /** Names of the parameters and states that its programs read or make gradients of. */
  readonly parameters: readonly string[];
}

/** The graph of a micro-batch as the programs of a pipeline's stages. */
export interface PipelineCut {
  readonly stages: readonly PipelineStage[];
  /** Parameters that several stages hold, such as a tied embedding: their gradients are summed over these. */
  readonly shared: ReadonlyMap<string, readonly number[]>;
}

/** How to cut. */
export interface CutOptions {
  readonly partition: Partition;
  /**
   * Cuts backward into the gradients of activations and those of parameters, which nobody waits for (Rae et al.,
   * "2BP: 2-Stage Backpropagation", arXiv 2405.18047; Qi et al., "Zero Bubble Pipeline Parallelism", arXiv 2401.10241).
   */
  readonly twoStageBackward?: boolean;
  /** What backward computes again instead of keeping it from forward. */
  readonly recompute?: RecomputePolicy | undefined;
  /** The name of the leaf that receives a parameter's gradient. */
  readonly gradientName: (parameter: string) => string;
}

/**
 * Cuts the graph of a micro-batch (loss and gradients, or the loss alone) into programs of a pipeline's stages. Run
 * in the order of a schedule they compute what the whole graph does, where the gradients of parameters that several
 * stages hold are still to be summed over those. Any value that one stage makes and another reads is passed from
 * stage to stage, not only the main activation. Every rank cuts alike and runs its own stages.
 */
export function cutPipeline(recorded: Graph, options: CutOptions): PipelineCut {
  const { partition, twoStageBackward = false, recompute, gradientName } = options;
  const { stages } = partition;
  const kept = recompute === undefined ? recorded : recomputeActivations(recorded, recompute);
  // The last stage computes the losses together with their gradients, in its backward program.
  const graph = removeDeadCode(fuseLossIntoGradient(kept));
  const assignment = assignSlots(graph, stages, (block) => partition.stageOf(block));
  const extractor = new ProgramExtractor(graph, assignment);
  const outputs = termsOfOutputs(graph);
  for (let stage = 0; stage < stages; stage++) {
    if (twoStageBackward) {
      const plain = outputs.filter(({ output }) => output.target === undefined).flatMap(({ terms }) => terms);
      extractor.splitBackward(backwardSlot(stage, stages), plain);
      const apart = outputsOf(extractor, outputs, stage, "weight_gradient");
      const first = outputsOf(extractor, outputs, stage, "backward");
      const overwritten = new Set(first.map(({ output }) => output.name));
      extractor.extract(
        stage,
        "weight_gradient",
        // What this stage's first half has stored is added to.
        apart.map((summed) => (overwritten.has(summed.output.name) ? accumulating(summed) : summed)),
      );
      extractor.extract(stage, "backward", first);
    } else extractor.extract(stage, "backward", outputsOf(extractor, outputs, stage, "backward"));
  }
  for (let stage = stages - 1; stage >= 0; stage--)
    extractor.extract(stage, "forward", outputsOf(extractor, outputs, stage, "forward"));
  return describe(stages, extractor, outputs, gradientName);
}

/** The terms of each result that a program makes; results that follow from inputs alone belong to the first stage. */
function outputsOf(
  extractor: ProgramExtractor,
  outputs: readonly SummedOutput[],
  stage: number,
  kind: ProgramKind,
): SummedOutput[] {
  return outputs.flatMap(({ output, terms }) => {
    const own = terms.filter(({ node }) => {
      const program = extractor.programOf(node) ?? { stage: 0, kind: "backward" };
      return program.stage === stage && program.kind === kind;
    });
    return own.length === 0 ? [] : [{ output, terms: own }];
  });
}

function accumulating({ output, terms }: SummedOutput): SummedOutput {
  return { output: { ...output, accumulate: true }, terms };
}

function describe(
  stages: number,
  extractor: ProgramExtractor,
  outputs: readonly SummedOutput[],
  gradientName: (parameter: string) => string,
): PipelineCut {
  const { programs } = extractor;
  const routes = routeValues(stages, extractor.values.values(), programs);
  const targets = targetsOf(programs);
  const held = Array.from({ length: stages }, () => new Set<string>());
  const parameterOf = new Map<string, string>();
  for (const { stage, graph } of programs) {
    for (const node of graph.nodes) {
      if (node.op !== "leaf" || node.attributes.kind === "input" || targets.has(node.attributes.name))
        continue;
      held[stage]!.add(node.attributes.name);
      parameterOf.set(gradientName(node.attributes.name), node.attributes.name);
    }
  }
  for (const program of programs) {
    for (const target of targetsOf([program])) {
      const parameter = parameterOf.get(target);
      if (parameter !== undefined) held[program.stage]!.add(parameter);
    }
  }
  const shared = new Map<string, readonly number[]>();
  for (const name of new Set(held.flatMap((names) => [...names]))) {
    const holders = held.flatMap((names, stage) => (names.has(name) ? [stage] : []));
    if (holders.length > 1) shared.set(name, holders);
  }
  const programOf = (stage: number, kind: ProgramKind): ExtractedProgram | undefined =>
    programs.find((program) => program.stage === stage && program.kind === kind);
  return {
    shared,
    stages: routes.map((route, stage): PipelineStage => {
      const forward = programOf(stage, "forward");
      const weightGradient = programOf(stage, "weight_gradient");
      const parameters = held[stage]!;
      const backward = clearUntouched(stage, programOf(stage, "backward"), {
        outputs,
        gradientName,
        shared: new Set([...parameters].filter((name) => shared.has(name))),
        made: targetsOf(programs.filter((program) => program.stage === stage)),
      });
      return {
        ...route,
        stage,
        ...(forward === undefined ? {} : { forward }),
        ...(backward === undefined ? {} : { backward }),
        ...(weightGradient === undefined ? {} : { weightGradient }),
        parameters: [...parameters].sort(),
      };
    }),
  };
}

/** Names of the leaves that programs store results in. */
function targetsOf(programs: readonly ExtractedProgram[]): Set<string> {
  return new Set(
    programs.flatMap(({ graph }) =>
      graph.outputs.flatMap(({ target }) => target?.node.attributes.name ?? []),
    ),
  );
}

/**
 * Zeros for the gradients of parameters that a stage shares with others and has no term of, where its programs
 * overwrite gradients: what the stages hold is added up.
 */
function clearUntouched(
  stage: number,
  program: StageProgram | undefined,
  options: {
    readonly outputs: readonly SummedOutput[];
    readonly gradientName: (parameter: string) => string;
    readonly shared: ReadonlySet<string>;
    readonly made: ReadonlySet<string>;
  },
): StageProgram | undefined {
  const wanted = new Set([...options.shared].map(options.gradientName));
  const zeros = options.outputs.flatMap(({ output }): GraphOutput[] => {
    const { target, accumulate } = output;
    if (target === undefined || accumulate === true) return [];
    const { name, shape, dtype } = target.node.attributes;
    return wanted.has(name) && !options.made.has(name) ? [{ ...output, value: fill(0, shape, dtype) }] : [];
  });
  if (zeros.length === 0) return program;
  const present = program ?? {
    graph: { name: `stage ${stage} backward`, nodes: [], outputs: [] },
    reads: [],
    writes: [],
  };
  const nodes = zeros.flatMap(({ value, target }) => [target!.node, value.node] as AnyNode[]);
  const graph = {
    ...present.graph,
    nodes: [...present.graph.nodes, ...nodes],
    outputs: [...present.graph.outputs, ...zeros],
  };
  return { ...present, graph };
}
