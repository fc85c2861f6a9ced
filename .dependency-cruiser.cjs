/**
 * The law of imports (docs/architecture.md). Rooms of `src/` import one way only:
 *
 *     base <- graph <- compiler <- runtime <- tensor <- nn <- models
 *     compiler <- parallel
 *     tensor <- optim, data, checkpoint            data, checkpoint <- models
 *     nn, models, optim, data, checkpoint, parallel <- train
 *     base <- serve/core                           models, data, checkpoint, parallel, serve/core <- serve
 *     everything <- cli, index.ts, serve.ts, backends.ts  (the only places that know how backends are made)
 *
 * Type imports obey it too. Tests may import whatever they compare with.
 */
const upToTensor = ["base", "graph", "compiler", "runtime", "tensor"];

/** What each room may import besides itself. A room that is not here may not exist. */
const law = {
  base: [],
  graph: ["base"],
  compiler: ["base", "graph"],
  runtime: ["base", "graph", "compiler"],
  tensor: ["base", "graph", "compiler", "runtime"],
  nn: upToTensor,
  optim: upToTensor,
  data: upToTensor,
  checkpoint: upToTensor,
  // Models read and write their weights, and the tokenizers that lie in the same files.
  models: [...upToTensor, "nn", "checkpoint", "data"],
  parallel: ["base", "graph", "compiler"],
  train: [...upToTensor, "nn", "models", "optim", "data", "checkpoint", "parallel"],
  "serve/core": ["base"],
  serve: [...upToTensor, "nn", "models", "data", "checkpoint", "parallel", "serve/core"],
};

const isTest = "\\.test\\.ts$";
/** What stands above every room: the command line, the library's entry and the choice of backends. */
const top = ["^src/cli/", "^src/index\\.ts$", "^src/serve\\.ts$", "^src/backends\\.ts$"];
const folders = (rooms) => rooms.map((room) => `^src/${room}/`);

const roomRules = Object.entries(law).map(([room, imports]) => ({
  name: `law-of-${room.replace("/", "-")}`,
  comment: `${room} may import ${imports.length === 0 ? "nothing" : imports.join(", ")}, and itself`,
  severity: "error",
  // serve/core is a room inside serve's folder.
  from: { path: `^src/${room}/`, pathNot: room === "serve" ? [isTest, "^src/serve/core/"] : [isTest] },
  to: { path: "^src/", pathNot: folders([...imports, room]) },
}));

module.exports = {
  forbidden: [
    ...roomRules,
    {
      name: "rooms-are-in-the-law",
      comment: "a new room of src/ is given its place in .dependency-cruiser.cjs first",
      severity: "error",
      from: { path: "^src/", pathNot: [...folders(Object.keys(law)), ...top] },
      to: {},
    },
    {
      name: "backends-are-chosen-at-the-top",
      comment: "others know runtime/backend.ts, and are handed a backend",
      severity: "error",
      from: { path: "^src/", pathNot: [...top, "^src/runtime/", isTest] },
      to: { path: "^src/runtime/[^/]+/" },
    },
    {
      name: "backends-know-no-other-backend",
      comment: "a backend imports the interface and nothing of its siblings",
      severity: "error",
      from: { path: "^src/runtime/([^/]+)/", pathNot: isTest },
      to: { path: "^src/runtime/[^/]+/", pathNot: "^src/runtime/$1/" },
    },
    {
      name: "runtime-interface-knows-no-backend",
      severity: "error",
      from: { path: "^src/runtime/[^/]+\\.ts$", pathNot: isTest },
      to: { path: "^src/runtime/[^/]+/" },
    },
    {
      name: "rooms-do-not-look-up",
      severity: "error",
      from: { path: "^src/", pathNot: [...top, isTest] },
      to: { path: top },
    },
    {
      name: "nothing-imports-tests",
      severity: "error",
      from: {},
      to: { path: isTest },
    },
    {
      name: "sources-stand-alone",
      comment: "src/ never imports from bench/, test/, scripts/ or examples/",
      severity: "error",
      from: { path: "^src/", pathNot: isTest },
      to: { path: "^(bench|test|scripts|examples)/" },
    },
    {
      name: "tests-do-not-import-benchmarks",
      severity: "error",
      from: { path: `^src/.*${isTest}` },
      to: { path: "^bench/" },
    },
    {
      name: "no-cycles",
      comment: "two files may know each other's types, never each other's values",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "imports-resolve",
      severity: "error",
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: "no-development-dependencies",
      comment: "what src/ needs to run is in `dependencies`",
      severity: "error",
      from: { path: "^src/", pathNot: isTest },
      to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"] },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: "specify",
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "default"] },
  },
};
