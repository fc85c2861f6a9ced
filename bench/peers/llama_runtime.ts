/**
 * The part of node-llama-cpp that the peers use; it is no dependency, so its own types may be absent.
 */

/** One llama.cpp context: batches are filled and decoded as they are. */
export interface LowContext {
  init(): Promise<boolean>;
  dispose(): Promise<void>;
  initBatch(size: number): void;
  addToBatch(sequence: number, position: number, tokens: Uint32Array, logits: Uint32Array): Uint32Array;
  decodeBatch(): Promise<void>;
  disposeSequence(sequence: number): void;
}

/** A sequence of the public interface. */
export interface LlamaSequence {
  evaluate(tokens: readonly number[], options: Record<string, unknown>): AsyncGenerator<number, void>;
  clearHistory(): Promise<void>;
  dispose(): Promise<void>;
}

/** A context of the public interface. */
export interface LlamaContext {
  getSequence(): LlamaSequence;
  dispose(): Promise<void>;
}

/** A loaded model. */
export interface LlamaModel {
  /** The native model. */
  readonly _model: unknown;
  createContext(options: Record<string, unknown>): Promise<LlamaContext>;
  tokenize(text: string, special?: boolean): number[];
  detokenize(tokens: readonly number[]): string;
  dispose(): Promise<void>;
}

/** The runtime. */
export interface LlamaRuntime {
  loadModel(options: Record<string, unknown>): Promise<LlamaModel>;
  readonly _bindings: {
    systemInfo(): string;
    readonly AddonContext: new (model: unknown, options: Record<string, unknown>) => LowContext;
  };
}

interface LlamaPackage {
  getLlama(options: Record<string, unknown>): Promise<LlamaRuntime>;
}

/** The runtime of the installed CPU package: builds and downloads nothing. @throws where it is not installed. */
export async function startLlama(threads: number): Promise<LlamaRuntime> {
  const packageName: string = "node-llama-cpp";
  const { getLlama } = (await import(packageName)) as LlamaPackage;
  return await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    logLevel: "error",
    progressLogs: false,
    maxThreads: threads,
  });
}
