/** One document of a data source, as text or as ready token ids. */
export interface DataDocument {
  /** Where it came from, for errors: `file`, `file:line`, `file, row 7`. */
  readonly name: string;
  /** The text, or ids that were tokenised before (taken as they are, nothing added around them). */
  readonly content: string | readonly number[];
  /** A text before `content` that is read but not learnt: no loss is taken on it. */
  readonly prompt?: string;
}

/** A readable set of documents in a fixed order. */
export interface DataSource {
  /** What a person would call it: a path or a package. */
  readonly name: string;
  /** Changes whenever the documents may have changed; caches are keyed by it. */
  readonly identity: string;
  /** Reads the documents from the start. */
  documents(): AsyncGenerator<DataDocument>;
}

/** The fields or columns that hold a document, in JSONL and Parquet alike. */
export interface DocumentFields {
  readonly content: string;
  readonly prompt?: string;
}
