/** Something that must be gathered before it is read. */
export interface GatheredForm {
  readonly elements: number;
  /** Positions of its readers in the program, ascending. */
  readonly reads: readonly number[];
}

/** A stretch of a program during which a gathered form is there. */
export interface LiveSpan<Form extends GatheredForm = GatheredForm> {
  readonly form: Form;
  /** The first and the last read. */
  readonly first: number;
  readonly last: number;
}

/** What bounds the spans, in elements. */
export interface SpanLimits {
  readonly maximumLive: number;
  readonly maximumReuseDistance: number;
}

/**
 * Chooses between which reads of each form it stays: where at most `maximumReuseDistance` elements of others are read
 * in between, and never so that more than `maximumLive` elements are there without need. Ordered by their first reads.
 */
export function chooseSpans<Form extends GatheredForm>(
  forms: readonly Form[],
  limits: SpanLimits,
): LiveSpan<Form>[] {
  const spans = forms.flatMap((form) => splitByDistance(form, forms, limits.maximumReuseDistance));
  splitWhereTooMuchIsLive(spans, limits.maximumLive);
  return spans.sort((a, b) => a.first - b.first);
}

/** Elements that are there at a position. */
export function liveAt(spans: readonly LiveSpan[], position: number): number {
  return spans.reduce(
    (sum, { form, first, last }) => (first <= position && position <= last ? sum + form.elements : sum),
    0,
  );
}

function splitByDistance<Form extends GatheredForm>(
  form: Form,
  forms: readonly Form[],
  maximum: number,
): LiveSpan<Form>[] {
  const spans: LiveSpan<Form>[] = [];
  for (const read of form.reads) {
    const open = spans.at(-1);
    if (open === undefined || distance(form, forms, open.last, read) > maximum) {
      spans.push({ form, first: read, last: read });
    } else {
      spans[spans.length - 1] = { ...open, last: read };
    }
  }
  return spans;
}

/** Elements of other forms that are read strictly between two positions. */
function distance(form: GatheredForm, forms: readonly GatheredForm[], from: number, to: number): number {
  return forms.reduce((sum, other) => {
    const between = other !== form && other.reads.some((read) => read > from && read < to);
    return between ? sum + other.elements : sum;
  }, 0);
}

/** Lets go of what is not read for the longest time, wherever more is there than may be. */
function splitWhereTooMuchIsLive<Form extends GatheredForm>(spans: LiveSpan<Form>[], maximum: number): void {
  const positions = [...new Set(spans.flatMap(({ form }) => form.reads))].sort((a, b) => a - b);
  for (const position of positions) {
    while (liveAt(spans, position) > maximum) {
      let longest = 0;
      let cut: { index: number; before: number; after: number } | undefined;
      spans.forEach(({ form, first, last }, index) => {
        if (position <= first || position >= last || form.reads.includes(position)) return;
        const before = form.reads.findLast((read) => read < position)!;
        const after = form.reads.find((read) => read > position)!;
        if (after - before <= longest) return;
        longest = after - before;
        cut = { index, before, after };
      });
      // What is read here must be here.
      if (cut === undefined) break;
      const { form, first, last } = spans[cut.index]!;
      spans.splice(cut.index, 1, { form, first, last: cut.before }, { form, first: cut.after, last });
    }
  }
}
