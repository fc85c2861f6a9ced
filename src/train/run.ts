import { ConfigError, DataError, FileFormatError } from "../base/errors.ts";
import { acquireRunLock, type JsonObject } from "../checkpoint/index.ts";
import type { UniversalStates } from "../checkpoint/universal/index.ts";
import { Mesh, type MeshAxis } from "../parallel/mesh.ts";
import type { Backend } from "../runtime/backend.ts";
import type { EmulatedLink, ProcessGroup } from "../runtime/group.ts";
import { requireSameRun } from "./agreement.ts";
import { type BatchSizes, describeMesh, loadConfig, resolveMesh, type TrainConfig } from "./config/index.ts";
import { type RunOutcome, TrainingLoop } from "./loop.ts";
import { joinMesh, type Rank } from "./rank.ts";
import { batchOfRun, checkpointToResume, fewerRanks, hasCheckpoint, requireRanks } from "./resuming.ts";
import { type RankLauncher, type RankResources, runRanks, type WorldOptions } from "./run_ranks.ts";
import { type RunProgress, restoreRun } from "./saving.ts";
import { setUpTraining, type TrainingParts } from "./setup.ts";
import { type SharedParts, shareParts } from "./shared_parts.ts";
import { beginWithUniversal, universalStatesOf } from "./universal.ts";
import { createTrainingView, silentView, type TrainingView } from "./view/index.ts";

/** What `slipstream train` is asked to do. */
export interface TrainingRequest {
  readonly configPath: string;
  /** `path.to.key=value` */
  readonly overrides: readonly string[];
  /** Continue from the last complete checkpoint in `output_dir`. */
  readonly resume: boolean;
  /** What one rank alone computes on; with `ranks` each has a backend of its own. */
  readonly backend: Backend;
  /** Starts several ranks; without it, one trains alone. */
  readonly ranks?: RankLauncher;
  /** How often a run that failed goes on from its last complete checkpoint. */
  readonly maximumRestarts?: number;
  /** Stops the run after the step at hand, with a checkpoint. */
  readonly signal?: AbortSignal;
  /** Where progress is shown; the terminal by default. */
  readonly view?: (config: TrainConfig) => TrainingView;
  /** Called on every rank of this process before each step; what it throws fails the rank. */
  readonly onStep?: (rank: number, step: number) => void | Promise<void>;
}

const start: RunProgress = { step: 0, tokens: 0, elapsedSeconds: 0 };

/**
 * Trains as a config says, from the start or from the last complete checkpoint. After a failure the run goes on
 * from its last complete checkpoint, `maximumRestarts` times at most: with `elasticity.enabled` on fewer ranks.
 * @throws ConfigError for a wrong config, another run in `output_dir`, ranks that differ, or a resume that
 * contradicts the checkpoint; CommunicationError where ranks were lost; DataError, FileFormatError, RunError for
 * what goes wrong later. What was saved stays whole.
 */
export async function runTraining(
  request: TrainingRequest,
): Promise<{ outcome: RunOutcome; config: TrainConfig }> {
  const config = loadConfig(request.configPath, request.overrides);
  const { ranks: launcher, maximumRestarts = 0 } = request;
  const leads = launcher?.lead ?? true;
  requireRanks(config, launcher?.count ?? 1);
  const lock = leads ? await acquireRunLock(config.output_dir) : undefined;
  try {
    let attempt: Attempt = { config, ranks: launcher?.count ?? 1, resume: request.resume, restarted: false };
    for (let restarts = 0; ; restarts++) {
      const run = new Run(request, attempt, leads);
      try {
        return { outcome: await run.train(), config };
      } catch (error) {
        if (restarts >= maximumRestarts || !canHelp(error) || request.signal?.aborted === true) throw error;
        attempt = run.next(error, restarts + 1, maximumRestarts);
      }
    }
  } finally {
    await lock?.release();
  }
}

/** One start of a run. */
interface Attempt {
  readonly config: TrainConfig;
  readonly ranks: number;
  readonly resume: boolean;
  /** Whether it follows a failure. */
  readonly restarted: boolean;
}

/** What a start begins with: a checkpoint of the run, a converted one, or nothing. */
interface Beginning {
  readonly resumed: string | undefined;
  readonly universal: UniversalStates | undefined;
}

/** Whether another start may end better. */
function canHelp(error: unknown): boolean {
  const certain = [ConfigError, DataError, FileFormatError];
  return !certain.some((kind) => error instanceof kind);
}

/** One start of a run, on this process's ranks. */
class Run {
  readonly #request: TrainingRequest;
  readonly #attempt: Attempt;
  readonly #leads: boolean;
  readonly #view: TrainingView;
  #batch: BatchSizes | undefined;

  constructor(request: TrainingRequest, attempt: Attempt, leads: boolean) {
    this.#request = request;
    this.#attempt = attempt;
    this.#leads = leads;
    const { config } = attempt;
    this.#view = leads ? (request.view?.(config) ?? createTrainingView(config.steps_per_print)) : silentView;
  }

  async train(): Promise<RunOutcome> {
    const { config, ranks, resume, restarted } = this.#attempt;
    const note = (line: string): void => this.#view.note(line);
    const sizes = resolveMesh(config, ranks);
    const resumed = await checkpointToResume(config, { resume, restarted, sizes, note });
    const beginning: Beginning = {
      resumed: resumed?.folder,
      universal: resumed === undefined ? await universalStatesOf(config) : undefined,
    };
    const batch = batchOfRun(config, sizes, resumed?.saved, note);
    this.#batch = batch;
    const shared = shareParts(config, batch, { resumes: resume, leads: this.#leads, note });
    try {
      const { ranks: launcher, backend } = this.#request;
      if (launcher === undefined) {
        return await this.#trainRank({ backend }, shared, batch, beginning, () => {});
      }
      const { timeout_seconds: timeoutSeconds } = config.comm;
      const started = await launcher.start(ranks, { timeoutSeconds, links: definedLinks(config) });
      try {
        const tasks = started.map((resources) => {
          let moment = "";
          const told = (now: string): void => {
            moment = now;
          };
          const run = () => this.#trainRank(resources, shared, batch, beginning, told, started.length);
          return { world: resources.world, run, moment: () => moment };
        });
        const [outcome] = await runRanks(tasks);
        return outcome!;
      } finally {
        for (const resources of started) resources.close();
      }
    } finally {
      this.#view.close();
      await shared.close();
    }
  }

  /** The start that follows this one, which failed. @throws the failure where nothing can follow. */
  next(error: unknown, restart: number, most: number): Attempt {
    const { config, ranks } = this.#attempt;
    const { ranks: launcher } = this.#request;
    if (launcher?.canRestart === false) throw error;
    const summary = (error instanceof Error ? error.message : String(error)).split("\n", 1)[0];
    const elastic = launcher !== undefined && config.elasticity.enabled;
    const fewer = elastic && this.#batch !== undefined ? fewerRanks(config, ranks, this.#batch) : undefined;
    const resume = hasCheckpoint(config);
    const place = resume ? "from the last complete checkpoint" : "from the beginning";
    const change =
      fewer === undefined ? "" : ` on ${fewer.ranks} of ${ranks} ranks, ${describeMesh(fewer.sizes)}`;
    this.#view.note(`restart ${restart} of ${most} ${place}${change}: ${summary}`);
    return { config: fewer?.config ?? config, ranks: fewer?.ranks ?? ranks, resume, restarted: true };
  }

  /** One rank from its set-up to its end. */
  async #trainRank(
    { world, backend }: Pick<RankResources, "backend"> & { readonly world?: ProcessGroup },
    shared: SharedParts,
    batch: BatchSizes,
    { resumed: folder, universal }: Beginning,
    moment: (now: string) => void,
    ranksHere = 1,
  ): Promise<RunOutcome> {
    const { config, ranks } = this.#attempt;
    const view = world === undefined || world.rank === 0 ? this.#view : silentView;
    moment("the start");
    world?.setMoment("the start");
    const about = {
      config,
      checkpoint: folder ?? universal?.folder ?? null,
      batch,
      ranks,
    } as unknown as JsonObject;
    await requireSameRun(world, JSON.parse(JSON.stringify(about)) as JsonObject);
    const rank =
      world === undefined
        ? undefined
        : await joinMesh(world, new Mesh(resolveMesh(config, ranks), world.rank), ranksHere);
    let parts: TrainingParts | undefined;
    try {
      parts = await setUpTraining(config, batch, shared, backend, rank);
      await requireSameRun(world, { data: { ...parts.dataset.train.state() } });
      let progress = start;
      if (folder !== undefined) {
        progress = await restoreRun(parts, folder);
        view.note(`resumed from ${folder}`);
      } else if (universal !== undefined) {
        progress = await beginWithUniversal(parts, universal);
        view.note(`goes on from step ${universal.step} of ${universal.folder}`);
      }
      const loop = new TrainingLoop(parts, {
        backend,
        view,
        progress,
        resumedFrom: folder,
        interrupted: () => this.#request.signal?.aborted === true,
        beforeStep: async (step) => {
          moment(`step ${step}`);
          tellMoment(rank, `step ${step}`);
          await this.#request.onStep?.(world?.rank ?? 0, step);
        },
      });
      return await loop.run();
    } finally {
      parts?.engine.dispose();
      for (const group of groupsOf(rank)) group.close();
    }
  }
}

function definedLinks({ comm }: TrainConfig): WorldOptions["links"] {
  return Object.fromEntries(
    Object.entries(comm.links).filter((entry): entry is [MeshAxis, EmulatedLink] => entry[1] !== undefined),
  );
}

function tellMoment(rank: Rank | undefined, moment: string): void {
  rank?.world.setMoment(moment);
  for (const group of groupsOf(rank)) group.setMoment(moment);
}

function groupsOf(rank: Rank | undefined): ProcessGroup[] {
  return rank === undefined ? [] : [...rank.groups.values(), rank.saving];
}
