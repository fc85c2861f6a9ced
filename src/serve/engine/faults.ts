import { environmentVariables, readInteger } from "../../base/environment.ts";

/** The switches that tests throw; all off unless the environment says otherwise. */
export interface TestSwitches {
  /** Every so many steps a running sequence is preempted; 0 never. */
  readonly forcePreemption: number;
  /** Milliseconds by which every step is slowed down. */
  readonly stepDelay: number;
  /** Every so many steps the forward pass throws; 0 never. */
  readonly failStep: number;
  /** Whether the scheduler's blocks are recounted after each step. */
  readonly check: boolean;
}

const most = Number.MAX_SAFE_INTEGER;

/** Reads the switches. @throws ConfigError naming the variable whose value cannot be used. */
export function readTestSwitches(): TestSwitches {
  return {
    forcePreemption: readInteger(environmentVariables.serveForcePreemption, 1, most) ?? 0,
    stepDelay: readInteger(environmentVariables.serveStepDelay, 1, 60_000) ?? 0,
    failStep: readInteger(environmentVariables.serveFailStep, 1, most) ?? 0,
    check: readInteger(environmentVariables.serveCheck, 0, 1) === 1,
  };
}
