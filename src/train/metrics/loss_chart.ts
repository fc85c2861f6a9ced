import { type LossPoint, lossChartSvg } from "./chart.ts";
import { replaceFile } from "./files.ts";
import type { MetricsSink, StepMetrics } from "./sink.ts";

/**
 * `loss.svg`, drawn anew at every flush. `history` is what earlier sessions of a resumed run recorded
 * (`readMetrics`).
 */
export function createLossChart(
  path: string,
  labels: { readonly title: string; readonly subtitle?: string | undefined },
  history: readonly StepMetrics[] = [],
): MetricsSink {
  const train: LossPoint[] = [];
  const validation: LossPoint[] = [];
  const record = ({ step, loss, evaluation_loss }: StepMetrics) => {
    train.push({ step, loss });
    if (evaluation_loss !== undefined) validation.push({ step, loss: evaluation_loss });
  };
  history.forEach(record);
  const draw = () => replaceFile(path, lossChartSvg({ ...labels, train, validation }));
  return { record, flush: draw, close: draw };
}
