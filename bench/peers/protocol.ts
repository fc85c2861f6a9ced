/**
 * What a benchmark says to a peer and what comes back. A peer is a process that reads one JSON request a
 * line and writes one JSON answer a line, so that a benchmark can run its own code and the peer in turn
 * (A B A B) within one run. Seconds are listed one for each repetition.
 */

/** Element types that peers compute in. */
export type PeerDtype = "f32" | "bf16";

/** C [m, n] = A [m, k] B [k, n]. */
export interface MatmulRequest {
  readonly task: "matmul";
  readonly threads: number;
  readonly dtype: PeerDtype;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly repetitions: number;
  /** PyTorch: B is stored [n, k], as weights of a linear layer are. */
  readonly transpose_b?: boolean;
  /** onnxruntime: B is part of the model, so that the runtime packs it once, before any timing. */
  readonly constant_b?: boolean;
}

/** Causal attention on [batch, heads, tokens, head_dim]; PyTorch only. */
export interface AttentionRequest {
  readonly task: "attention";
  readonly threads: number;
  readonly dtype: PeerDtype;
  readonly batch: number;
  readonly heads: number;
  readonly kv_heads?: number;
  readonly tokens: number;
  readonly head_dim: number;
  readonly repetitions: number;
  /** Time the backward pass as well: `seconds` are then its, `forward_seconds` the forward's. */
  readonly backward?: boolean;
  /** `unfused`: matmul, softmax, matmul. `fused`: scaled_dot_product_attention (PyTorch 2). */
  readonly kind?: "unfused" | "fused";
}

/** Steps of training of a Llama-shaped model with AdamW; PyTorch only. */
export interface TrainRequest {
  readonly task: "train";
  readonly threads: number;
  /** `bf16` is autocast over float32 weights. */
  readonly dtype: PeerDtype;
  readonly config: {
    readonly dim: number;
    readonly layers: number;
    readonly heads: number;
    readonly kv_heads?: number;
    readonly ffn: number;
    readonly vocabulary: number;
  };
  readonly batch: number;
  /** Tokens of one sequence that are trained on. */
  readonly sequence: number;
  readonly steps: number;
  readonly learning_rate?: number;
}

/** Versions of the peer's parts. */
export interface InfoRequest {
  readonly task: "info";
}

/** Frees the operands and models that the peer keeps between requests. */
export interface ForgetRequest {
  readonly task: "forget";
}

/** Opens a GGUF file; llama.cpp only. The requests below go to the file that was opened last. */
export interface OpenRequest {
  readonly task: "open";
  readonly threads: number;
  readonly file: string;
  /** Sequences that run at once at the most. */
  readonly sequences: number;
  /** Tokens of all sequences together at the most. */
  readonly context: number;
  /** Tokens of one pass at the most. */
  readonly batch: number;
}

/** Reads a prompt into an empty cache: seconds of each repetition. */
export interface PromptRequest {
  readonly task: "prompt";
  readonly tokens: readonly number[];
  readonly repetitions: number;
}

/** Writes one token for each stream a step: seconds of each step. */
export interface DecodeRequest {
  readonly task: "decode";
  /**
   * `batch`: one llama_decode a step, nothing sampled, as llama.cpp's own batched benchmark does.
   * `package`: node-llama-cpp's public interface, a sequence a stream, greedy; its batches are its own affair, so
   * that a step is the time of all streams' tokens divided by tokens a stream.
   */
  readonly api: "batch" | "package";
  readonly streams: number;
  /** Tokens of each stream's prompt. */
  readonly prompt: number;
  readonly steps: number;
}

/** Continues a prompt greedily. */
export interface GreedyRequest {
  readonly task: "greedy";
  readonly tokens: readonly number[];
  readonly count: number;
}

export type PeerRequest =
  | MatmulRequest
  | AttentionRequest
  | TrainRequest
  | OpenRequest
  | PromptRequest
  | DecodeRequest
  | GreedyRequest
  | InfoRequest
  | ForgetRequest;

interface Times {
  readonly seconds: readonly number[];
  readonly median_seconds: number;
}

/** What each task answers. */
export interface PeerAnswers {
  readonly matmul: Times & { readonly gflops: number };
  readonly attention: Times & {
    readonly forward_seconds?: readonly number[];
    readonly median_forward_seconds?: number;
  };
  readonly train: Times & {
    readonly tokens_per_second: number;
    readonly losses: readonly number[];
    readonly parameters: number;
  };
  /** Seconds to ready. */
  readonly open: { readonly seconds: number };
  readonly prompt: Times;
  readonly decode: Times;
  readonly greedy: { readonly tokens: readonly number[] };
  readonly info: PeerInfo;
  readonly forget: Record<string, never>;
}

/** Who the peer is. */
export interface PeerInfo {
  readonly torch?: string;
  readonly onnxruntime?: string;
  readonly node_llama_cpp?: string;
  /** What llama.cpp says of the processor. */
  readonly llama_system?: string;
  readonly fused_attention?: boolean;
  readonly onednn?: boolean;
  /** The library behind PyTorch's float32 matmul. */
  readonly blas?: string;
  /** It is the reference BLAS: about a hundred times slower than the machine, no fair peer in float32. */
  readonly blas_is_reference?: boolean;
}
