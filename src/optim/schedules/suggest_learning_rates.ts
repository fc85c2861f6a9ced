import { DataError, RunError } from "../../base/errors.ts";

/** What a learning rate range test says. */
export interface LearningRateSuggestion {
  /** A lower bound for one cycle: a tenth of `maximum`. */
  readonly minimum: number;
  /** The upper bound: the rate at which the loss was lowest, before it turned. */
  readonly maximum: number;
  /** The rate at which the loss fell fastest per relative growth of the rate: a safe constant rate. */
  readonly steepest: number;
  /** Whether the loss diverged. Where it did not, the test stopped too early to show the true maximum. */
  readonly diverged: boolean;
}

/** Smith's factor between the bounds when a single cycle is used (10 to 20). */
const boundsRatio = 10;

/**
 * Reads a range test (Smith, arXiv 1803.09820, section 4.1): `losses[i]` is the training loss of the
 * update that ran at `rates[i]`, and the rates rise. Losses are smoothed by a centred average over a
 * twenty-fifth of the run; the run counts as diverged where a loss is not finite or half of the progress
 * is lost again.
 * @throws DataError where the two lists do not match or the rates do not rise.
 * @throws RunError where the loss never fell.
 */
export function suggestLearningRates(
  losses: readonly number[],
  rates: readonly number[],
): LearningRateSuggestion {
  if (losses.length !== rates.length || losses.length < 10) {
    throw new DataError("bad_range_test", "a range test needs one rate per loss, and at least 10 of them", {
      received: `${losses.length} losses and ${rates.length} rates`,
    });
  }
  const falls = rates.findIndex((rate, i) => !(rate > 0) || (i > 0 && rate < rates[i - 1]!));
  if (falls !== -1) {
    throw new DataError("bad_range_test", "the rates of a range test must be positive and rise", {
      where: `rates[${falls}]`,
      received: String(rates[falls]),
    });
  }
  const notFinite = losses.findIndex((loss) => !Number.isFinite(loss));
  const finite = notFinite === -1 ? losses : losses.slice(0, notFinite);
  const smooth = centredAverage(finite, Math.floor(losses.length / 50));

  let best = 0;
  for (let i = 1; i < smooth.length; i++) if (smooth[i]! < smooth[best]!) best = i;
  const lost = smooth[best]! + (smooth[0]! - smooth[best]!) / 2;
  const diverged = notFinite !== -1 || smooth.slice(best).some((loss) => loss > lost);
  if (best === 0) {
    throw new RunError("range_test_inconclusive", "the loss never fell during the range test", {
      hint: "start at a lower lr_range_test_min_lr",
    });
  }
  const maximum = rates[best]!;
  return {
    minimum: maximum / boundsRatio,
    maximum,
    steepest: rates[steepestFall(smooth, rates, best)]!,
    diverged,
  };
}

/** Means over up to `reach` neighbours on each side, as many on the left as on the right. */
function centredAverage(values: readonly number[], reach: number): number[] {
  return values.map((_, centre) => {
    const side = Math.min(reach, centre, values.length - 1 - centre);
    let sum = 0;
    for (let i = centre - side; i <= centre + side; i++) sum += values[i]!;
    return sum / (2 * side + 1);
  });
}

/** The index up to `end` at which the loss falls fastest against the logarithm of the rate. */
function steepestFall(losses: readonly number[], rates: readonly number[], end: number): number {
  let steepest = 0;
  let lowestSlope = Infinity;
  for (let i = 0; i <= end; i++) {
    const left = Math.max(0, i - 1);
    const right = Math.min(end, i + 1);
    const growth = Math.log(rates[right]! / rates[left]!);
    // A staircase holds its rate for a while: no slope there.
    const slope = growth > 0 ? (losses[right]! - losses[left]!) / growth : 0;
    if (slope < lowestSlope) {
      lowestSlope = slope;
      steepest = i;
    }
  }
  return steepest;
}
