import { scaleLinear } from "d3-scale";
import { curveMonotoneX, line } from "d3-shape";

/** A loss at a step. */
export interface LossPoint {
  readonly step: number;
  readonly loss: number;
}

/** What a loss chart shows. */
export interface LossChart {
  readonly title: string;
  /** A line under the title: the model, the data, the date. */
  readonly subtitle?: string | undefined;
  readonly train: readonly LossPoint[];
  readonly validation: readonly LossPoint[];
}

const width = 860;
const height = 480;
const margin = { top: 76, right: 88, bottom: 56, left: 64 };
/** Points drawn of one curve: about one a pixel. */
const mostPoints = 700;

const style = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #52525b; }
  .title { font-size: 18px; font-weight: 600; fill: #18181b; }
  .background { fill: #ffffff; }
  .grid { stroke: #e4e4e7; }
  .axis { stroke: #a1a1aa; }
  .curve { fill: none; stroke-linejoin: round; stroke-linecap: round; }
  .train { stroke: #2563eb; } .validation { stroke: #c2410c; }
  .dot.train, .label.train { fill: #2563eb; stroke: none; }
  .dot.validation, .label.validation { fill: #c2410c; stroke: none; }
  .label { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #a1a1aa; }
    .title { fill: #fafafa; }
    .background { fill: #18181b; }
    .grid { stroke: #27272a; }
    .axis { stroke: #52525b; }
    .train { stroke: #60a5fa; } .validation { stroke: #fb923c; }
    .dot.train, .label.train { fill: #60a5fa; stroke: none; }
    .dot.validation, .label.validation { fill: #fb923c; stroke: none; }
  }`;

/**
 * Training and validation loss by step as an SVG, light or dark as its viewer prefers. Every training loss
 * is drawn faintly and their running mean on top of it; the axis follows the running mean, so that one
 * spike does not flatten the rest. Losses that are not finite leave a gap in the faint curve.
 */
export function lossChartSvg(chart: LossChart): string {
  const steps = [...chart.train, ...chart.validation].map(({ step }) => step);
  const mean = runningMean(chart.train);
  const losses = [...mean, ...chart.validation].map(({ loss }) => loss).filter(Number.isFinite);
  const [firstStep, lastStep] = extent(steps, [0, 1]);
  const x = scaleLinear([firstStep, lastStep], [margin.left, width - margin.right]);
  const y = scaleLinear(extent(losses, [0, 1]), [height - margin.bottom, margin.top]).nice(6);
  const curve = line<LossPoint>(
    (point) => round(x(point.step)),
    (point) => round(y(point.loss)),
  ).defined((point) => Number.isFinite(point.loss));
  const path = (points: readonly LossPoint[], attributes: string, smooth: boolean) => {
    const drawn = curve.curve(curveMonotoneX)(smooth ? points : thin(points));
    return drawn === null ? "" : `<path class="curve ${attributes}" d="${drawn}"/>`;
  };
  const finite = chart.validation.filter(({ loss }) => Number.isFinite(loss));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title description">`,
    `<title id="title">${escapeText(chart.title)}</title>`,
    `<desc id="description">${escapeText(description(chart))}</desc>`,
    `<style>${style}\n</style>`,
    `<clipPath id="plot"><rect x="${margin.left}" y="${margin.top}" width="${width - margin.left - margin.right}" height="${height - margin.top - margin.bottom}"/></clipPath>`,
    `<rect class="background" width="${width}" height="${height}" rx="8"/>`,
    `<text class="title" x="${margin.left}" y="34">${escapeText(chart.title)}</text>`,
    chart.subtitle === undefined
      ? ""
      : `<text x="${margin.left}" y="54">${escapeText(chart.subtitle)}</text>`,
    ...axes(x, y),
    ...legend(finite.length > 0),
    path(chart.train, `train" stroke-width="1" stroke-opacity="0.28" clip-path="url(#plot)`, false),
    path(thin(mean), `train" stroke-width="2.25`, true),
    path(finite, `validation" stroke-width="2.25`, true),
    ...(finite.length <= 60 ? finite : []).map(
      (point) =>
        `<circle class="dot validation" cx="${round(x(point.step))}" cy="${round(y(point.loss))}" r="3"/>`,
    ),
    ...endLabels(mean, finite, x, y),
    "</svg>",
    "",
  ]
    .filter((part, index, all) => part !== "" || index === all.length - 1)
    .join("\n");
}

type Scale = ReturnType<typeof scaleLinear<number, number>>;

function axes(x: Scale, y: Scale): string[] {
  const bottom = height - margin.bottom;
  const right = width - margin.right;
  const stepText = x.tickFormat(7, ",d");
  const lossText = y.tickFormat(6);
  return [
    ...y
      .ticks(6)
      .flatMap((loss) => [
        `<line class="grid" x1="${margin.left}" x2="${right}" y1="${round(y(loss))}" y2="${round(y(loss))}"/>`,
        `<text x="${margin.left - 10}" y="${round(y(loss) + 4)}" text-anchor="end">${lossText(loss)}</text>`,
      ]),
    `<line class="axis" x1="${margin.left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`,
    ...x
      .ticks(7)
      .filter(Number.isInteger)
      .flatMap((step) => [
        `<line class="axis" x1="${round(x(step))}" x2="${round(x(step))}" y1="${bottom}" y2="${bottom + 5}"/>`,
        `<text x="${round(x(step))}" y="${bottom + 20}" text-anchor="middle">${stepText(step)}</text>`,
      ]),
    `<text x="${(margin.left + right) / 2}" y="${height - 14}" text-anchor="middle">step</text>`,
    `<text x="${-(margin.top + bottom) / 2}" y="18" text-anchor="middle" transform="rotate(-90)">loss (nats per token)</text>`,
  ];
}

function legend(hasValidation: boolean): string[] {
  const entries = hasValidation ? ["train", "validation"] : ["train"];
  const start = width - margin.right - (hasValidation ? 161 : 55);
  return entries.flatMap((name, index) => [
    `<line class="curve ${name}" stroke-width="2.25" x1="${start + index * 76}" x2="${start + index * 76 + 20}" y1="30" y2="30"/>`,
    `<text x="${start + index * 76 + 27}" y="34">${name}</text>`,
  ]);
}

/** The last value of each curve beside its end, pushed apart where they would overlap. */
function endLabels(
  mean: readonly LossPoint[],
  validation: readonly LossPoint[],
  x: Scale,
  y: Scale,
): string[] {
  const ends = [
    { name: "train", point: mean.at(-1) },
    { name: "validation", point: validation.at(-1) },
  ].flatMap(({ name, point }) => (point === undefined ? [] : [{ name, point, at: y(point.loss) }]));
  const [first, second] = ends;
  if (first !== undefined && second !== undefined && Math.abs(first.at - second.at) < 15) {
    const middle = (first.at + second.at) / 2;
    const direction = first.at <= second.at ? -1 : 1;
    first.at = middle + direction * 7.5;
    second.at = middle - direction * 7.5;
  }
  return ends.map(
    ({ name, point, at }) =>
      `<text class="label ${name}" x="${round(Math.max(x(point.step), x.range()[1]!) + 8)}" y="${round(at + 4)}">${point.loss.toFixed(3)}</text>`,
  );
}

/**
 * The mean over a hundredth of the run on either side of each step (fewer near the ends, as many on the left
 * as on the right), so that the curve does not lag behind the losses.
 */
function runningMean(points: readonly LossPoint[]): LossPoint[] {
  const finite = points.filter(({ loss }) => Number.isFinite(loss));
  const sums = [0];
  for (const { loss } of finite) sums.push(sums.at(-1)! + loss);
  const reach = Math.min(100, Math.floor(finite.length / 100));
  return finite.map(({ step }, index) => {
    const side = Math.min(reach, index, finite.length - 1 - index);
    return { step, loss: (sums[index + side + 1]! - sums[index - side]!) / (2 * side + 1) };
  });
}

/** At most `mostPoints` points, always with the last. */
function thin(points: readonly LossPoint[]): readonly LossPoint[] {
  const stride = Math.ceil(points.length / mostPoints);
  return stride <= 1 ? points : points.filter((_, index) => (points.length - 1 - index) % stride === 0);
}

function description(chart: LossChart): string {
  const last = (points: readonly LossPoint[]) => points.findLast(({ loss }) => Number.isFinite(loss));
  const train = last(chart.train);
  const validation = last(chart.validation);
  const parts = [
    train === undefined
      ? "No training loss yet"
      : `Training loss ${train.loss.toFixed(3)} at step ${train.step}`,
    ...(validation === undefined
      ? []
      : [`validation loss ${validation.loss.toFixed(3)} at step ${validation.step}`]),
  ];
  return `${parts.join(", ")}.`;
}

/** The least and greatest, a little apart where they are the same; `otherwise` where there are none. */
function extent(values: readonly number[], otherwise: [number, number]): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return otherwise;
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}

function escapeText(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
