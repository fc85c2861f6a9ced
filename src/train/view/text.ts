/** Characters that take two columns of a terminal: East Asian wide forms and emoji. */
const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}|[\u{20000}-\u{3fffd}]/u;
const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

function* characters(text: string): Generator<{ readonly character: string; readonly columns: number }> {
  for (const { segment } of graphemes.segment(text))
    yield { character: segment, columns: wide.test(segment) ? 2 : 1 };
}

/** Columns that text takes in a terminal. */
export function columnsOf(text: string): number {
  let columns = 0;
  for (const each of characters(text)) columns += each.columns;
  return columns;
}

/** Text cut to `width` columns, with an ellipsis where something was cut. */
export function cut(text: string, width: number): string {
  if (columnsOf(text) <= width) return text;
  let kept = "";
  let columns = 0;
  for (const each of characters(text)) {
    if (columns + each.columns > width - 1) break;
    kept += each.character;
    columns += each.columns;
  }
  return width < 1 ? "" : `${kept}…`;
}

/** Text over at most `most` lines of `width` columns, broken between words where that is possible. */
export function wrap(text: string, width: number, most: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest !== "" && lines.length < most) {
    if (columnsOf(rest) <= width || lines.length === most - 1) {
      lines.push(cut(rest, width));
      break;
    }
    let end = cut(rest, width + 1).length - 1;
    const space = rest.lastIndexOf(" ", end);
    if (space > end / 2) end = space;
    lines.push(rest.slice(0, end).trimEnd());
    rest = rest.slice(end).trimStart();
  }
  return lines;
}

/** Text that a model wrote, on one line and without anything that a terminal would obey. */
export function printable(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll(/\p{Cc}|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "");
}

/** A whole number with its thousands apart: `18,432`. */
export function grouped(value: number): string {
  return Number.isFinite(value) ? Math.round(value).toLocaleString("en-US") : "?";
}

/** Seconds as people say them: `12s`, `4m 05s`, `3h 07m`, `2d 4h`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  return `${Math.floor(minutes / 1440)}d ${Math.floor((minutes % 1440) / 60)}h`;
}

const levels = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/**
 * A curve of at most `width` characters, one the mean of as many values as it takes. A value that is not
 * finite makes a `×`.
 */
export function sparkline(values: readonly number[], width: number): string {
  const count = Math.min(width, values.length);
  if (count < 1) return "";
  const means = Array.from({ length: count }, (_, index) => {
    const part = values.slice(
      Math.floor((index * values.length) / count),
      Math.floor(((index + 1) * values.length) / count),
    );
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
  const finite = means.filter(Number.isFinite);
  const low = Math.min(...finite);
  const range = Math.max(...finite) - low;
  return means
    .map((mean) => {
      if (!Number.isFinite(mean)) return "×";
      return levels[range === 0 ? 0 : Math.round(((mean - low) / range) * (levels.length - 1))];
    })
    .join("");
}
