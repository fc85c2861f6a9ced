/** Everything that the view of a running training shows. */
export interface ViewState {
  /** What is trained: `llama 30M on moby-dick.txt`. */
  readonly title: string;
  /** What goes on besides the steps: `evaluating`, `saving a checkpoint`. */
  readonly activity?: string | undefined;
  /** Updates done. */
  readonly step: number;
  /** Updates of the whole run; undefined where it ends by something else. */
  readonly totalSteps?: number | undefined;
  /** The losses of the run so far (or its last part), oldest first; the last is the current one. */
  readonly losses: readonly number[];
  readonly learningRate: number;
  readonly gradientNorm?: number | undefined;
  readonly tokensPerSecond: number;
  /** Model FLOPs over the machine's peak, 0 to 1. */
  readonly modelFlopsUtilisation?: number | undefined;
  readonly memoryBytes: number;
  /** The mean time of recent steps, from which the time left is reckoned. */
  readonly stepSeconds: number;
  readonly lossScale?: number | undefined;
  readonly evaluation?: { readonly step: number; readonly loss: number } | undefined;
  readonly sample?: { readonly prompt: string; readonly text: string } | undefined;
}

/** Shows how a training goes. */
export interface TrainingView {
  /** Shows a new state. Cheap: a terminal is redrawn ten times a second at most. */
  update(state: ViewState): void;
  /** Prints a line that stays: a checkpoint, a warning. */
  note(line: string): void;
  /** Shows the last state for good and gives the terminal back. */
  close(): void;
}

/** Where a view is drawn: standard output, or something that stands for it. */
export interface ViewStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  /** Whether at least `count` colours can be shown; Node's own knows of `NO_COLOR`. */
  hasColors?(count: number): boolean;
  on?(event: "resize", listener: () => void): unknown;
  off?(event: "resize", listener: () => void): unknown;
}
