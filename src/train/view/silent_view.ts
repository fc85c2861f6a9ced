import type { TrainingView } from "./state.ts";

/** A view that shows nothing: that of every rank but the first. */
export const silentView: TrainingView = { update: () => {}, note: () => {}, close: () => {} };
