export { type LossChart, type LossPoint, lossChartSvg } from "./chart.ts";
export { createMetricsLog, readMetrics } from "./jsonl.ts";
export { createLossChart } from "./loss_chart.ts";
export { combineSinks, type MetricsSink, type StepMetrics } from "./sink.ts";
export { createTensorBoardLog } from "./tensorboard.ts";
