/** onnxruntime-node as a benchmark peer: the float32 matmul of protocol.ts, line by line. */

import { answerRequests } from "./answer_requests.ts";
import { matmulModel } from "./onnx_model.ts";
import type { MatmulRequest, PeerRequest } from "./protocol.ts";

/** The part of onnxruntime-node that is used; it is no dependency, so its own types may be absent. */
interface OnnxRuntime {
  readonly env: { readonly versions: { readonly common?: string; readonly node?: string } };
  readonly Tensor: new (type: "float32", data: Float32Array, shape: readonly number[]) => OnnxTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: Record<string, unknown>): Promise<OnnxSession>;
  };
}
interface OnnxTensor {
  readonly data: Float32Array;
}
interface OnnxSession {
  run(
    feeds: Readonly<Record<string, OnnxTensor>>,
    fetches: Readonly<Record<string, OnnxTensor>>,
  ): Promise<Readonly<Record<string, OnnxTensor>>>;
  release(): Promise<void>;
}

const packageName: string = "onnxruntime-node";
const runtime = (await import(packageName)) as OnnxRuntime;

/** Reproducible values in [-1, 1). */
function randomValues(count: number, seed: number): Float32Array {
  const values = new Float32Array(count);
  let state = seed >>> 0;
  for (let index = 0; index < count; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[index] = state / 2 ** 31 - 1;
  }
  return values;
}

/** Throws unless some elements of C, the last one among them, are what float64 says. */
function check(a: Float32Array, b: Float32Array, c: Float32Array, { m, n, k }: MatmulRequest): void {
  for (const [row, column] of [
    [0, 0],
    [Math.floor(m / 2), Math.floor(n / 3)],
    [m - 1, n - 1],
  ] as const) {
    let exact = 0;
    let size = 0;
    for (let inner = 0; inner < k; inner += 1) {
      const product = a[row * k + inner]! * b[inner * n + column]!;
      exact += product;
      size += product * product;
    }
    const error = Math.abs(c[row * n + column]! - exact) / Math.sqrt(size);
    if (!(error < 1e-5)) throw new Error(`C[${row}, ${column}] is wrong by ${error}`);
  }
}

async function matmul(request: MatmulRequest): Promise<Record<string, unknown>> {
  const { m, n, k, threads, repetitions } = request;
  if (request.dtype !== "f32") throw new Error("onnxruntime is a peer of float32 matmul alone");
  const a = randomValues(m * k, 1);
  const b = randomValues(k * n, 2);
  const constantB = request.constant_b === true ? { constantB: b } : {};
  const session = await runtime.InferenceSession.create(matmulModel({ m, n, k, ...constantB }), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
    // Threads that spin after a run would take the cores from whoever is measured next.
    extra: { session: { force_spinning_stop: "1" } },
  });
  const feeds: Record<string, OnnxTensor> = { A: new runtime.Tensor("float32", a, [m, k]) };
  if (request.constant_b !== true) feeds.B = new runtime.Tensor("float32", b, [k, n]);
  const output = new runtime.Tensor("float32", new Float32Array(m * n), [m, n]);
  let product = (await session.run(feeds, { C: output })).C!;
  const seconds: number[] = [];
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    const begin = performance.now();
    product = (await session.run(feeds, { C: output })).C!;
    seconds.push((performance.now() - begin) / 1e3);
  }
  check(a, b, product.data, request);
  await session.release();
  const middle = seconds.toSorted((first, second) => first - second)[Math.floor(seconds.length / 2)]!;
  return { seconds, median_seconds: middle, gflops: (2 * m * n * k) / middle / 1e9 };
}

async function answer(request: PeerRequest): Promise<Record<string, unknown>> {
  switch (request.task) {
    case "info":
      return { onnxruntime: runtime.env.versions.node ?? runtime.env.versions.common ?? "unknown" };
    case "forget":
      return {};
    case "matmul":
      return await matmul(request);
    case "attention":
    case "train":
    case "open":
    case "prompt":
    case "decode":
    case "greedy":
      throw new Error(`onnxruntime has no task "${request.task}"; tasks: info, matmul, forget`);
    default:
      throw new Error(`no such task: ${JSON.stringify(request satisfies never)}`);
  }
}

await answerRequests(answer);
