/** DeepSpeed's `fp16` keys. */
export interface LossScaleSettings {
  readonly loss_scale: number;
  readonly initial_scale_power: number;
  readonly loss_scale_window: number;
  readonly hysteresis: number;
  readonly consecutive_hysteresis: boolean;
  readonly min_loss_scale: number;
}

/** What a checkpoint keeps of the scale. */
export interface LossScaleState {
  readonly scale: number;
  readonly goodSteps: number;
  readonly hysteresis: number;
  readonly skipped: number;
}

/**
 * The factor that keeps half-precision gradients from vanishing (Micikevicius et al., "Mixed Precision
 * Training", arXiv 1710.03740): it halves on overflow and doubles after a window without one.
 */
export class LossScale {
  readonly #settings: LossScaleSettings;
  readonly #dynamic: boolean;
  #scale: number;
  #goodSteps = 0;
  #hysteresis: number;
  #skipped = 0;

  constructor(settings: LossScaleSettings) {
    this.#settings = settings;
    this.#dynamic = settings.loss_scale === 0;
    this.#scale = this.#dynamic ? 2 ** settings.initial_scale_power : settings.loss_scale;
    this.#hysteresis = settings.hysteresis;
  }

  get scale(): number {
    return this.#scale;
  }

  /** Updates that were skipped so far. */
  get skipped(): number {
    return this.#skipped;
  }

  /** Whether the scale can fall no further: an overflow now is the model's own. */
  get exhausted(): boolean {
    return !this.#dynamic || this.#scale <= this.#settings.min_loss_scale;
  }

  /** Takes note of a step whose gradients overflowed: the update is skipped. */
  overflowed(): void {
    this.#skipped++;
    this.#goodSteps = 0;
    if (!this.#dynamic) return;
    if (this.#hysteresis > 1) {
      this.#hysteresis--;
      return;
    }
    this.#scale = Math.max(this.#scale / 2, this.#settings.min_loss_scale);
  }

  /** Takes note of a step whose gradients were finite. */
  succeeded(): void {
    if (!this.#dynamic) return;
    const { consecutive_hysteresis: consecutive, hysteresis, loss_scale_window: window } = this.#settings;
    if (consecutive) this.#hysteresis = hysteresis;
    this.#goodSteps++;
    if (this.#goodSteps % window !== 0) return;
    if (!consecutive) this.#hysteresis = hysteresis;
    this.#scale *= 2;
  }

  state(): LossScaleState {
    return {
      scale: this.#scale,
      goodSteps: this.#goodSteps,
      hysteresis: this.#hysteresis,
      skipped: this.#skipped,
    };
  }

  restore(state: LossScaleState): void {
    this.#scale = state.scale;
    this.#goodSteps = state.goodSteps;
    this.#hysteresis = state.hysteresis;
    this.#skipped = state.skipped;
  }
}
