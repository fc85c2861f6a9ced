export { renderPlainLine, renderView } from "./render.ts";
export { silentView } from "./silent_view.ts";
export type { TrainingView, ViewState, ViewStream } from "./state.ts";
export { createTrainingView } from "./training_view.ts";
