/**
 * Cuts a document into consecutive windows of at most `size` tokens. The first token of a window is not
 * predicted, so a last window of one token would add nothing and is left out.
 */
export function cutWindows(ids: readonly number[], size: number): number[][] {
  const windows: number[][] = [];
  for (let start = 0; start + 1 < ids.length; start += size) windows.push(ids.slice(start, start + size));
  return windows;
}

/** Groups windows, in order, into batches of at most `budget` tokens; a window is never longer than that. */
export function* batchWindows(windows: readonly number[][], budget: number): Generator<number[][]> {
  let batch: number[][] = [];
  let tokens = 0;
  for (const window of windows) {
    if (batch.length > 0 && tokens + window.length > budget) {
      yield batch;
      batch = [];
      tokens = 0;
    }
    batch.push(window);
    tokens += window.length;
  }
  if (batch.length > 0) yield batch;
}
