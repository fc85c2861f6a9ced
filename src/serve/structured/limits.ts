/** Bounds that keep a hostile schema or pattern from costing more than milliseconds. */
export const limits = {
  /** Values in a schema (objects, arrays, texts, numbers). */
  schemaValues: 20_000,
  /** Levels of a schema. */
  schemaDepth: 100,
  /** States of a grammar. */
  networkStates: 40_000,
  /** Edges of a grammar. */
  networkEdges: 200_000,
  /** Rules of a grammar: schemas, and combinations of schemas that anyOf and allOf make. */
  rules: 2_500,
  /** Characters of a regular expression. */
  patternLength: 10_000,
  /** Levels of groups in a regular expression. */
  patternDepth: 100,
  /** States of a regular expression before it is made deterministic, repetitions written out. */
  patternStates: 20_000,
  /** States of a deterministic one. */
  deterministicStates: 6_000,
  /** Visits of states while all regular expressions of a schema are made deterministic and put together. */
  patternWork: 300_000,
  /** Steps of the automaton, above two for each node of the trie, while a mask is made; then only bytes are tried. */
  maskWork: 400_000,
} as const;
