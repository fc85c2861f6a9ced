/**
 * `node attention_length.ts TOKENS HEADS`: bf16 attention, forward and backward, over one sequence, in a
 * process of its own so that its memory shows. Prints one object (`LengthResult`).
 */
import { createNativeBackend } from "../../src/backends.ts";
import { fusedGraph } from "../harness/attention_programs.ts";
import { residentBytes } from "../harness/resident.ts";
import { noise, zeros } from "../harness/tensors.ts";

/** What the process prints. */
export interface LengthResult {
  readonly seconds: number;
  /** Bytes that the program plans: values, work space, operands and results. */
  readonly planned: number;
  /** By how many bytes the process grew at most; absent where the system does not tell. */
  readonly grown?: number;
}

const backend = createNativeBackend();

async function attend(tokens: number, heads: number): Promise<{ seconds: number; planned: number }> {
  const size = 64;
  const shape = [tokens, heads, size];
  const program = backend.compile(fusedGraph({ dtype: "bf16", tokens, heads, size }));
  const operand = (seed: number) => noise("bf16", shape, seed).data;
  const operands = { q: operand(1), k: operand(2), v: operand(3), d_out: operand(4) };
  const result = () => zeros("bf16", shape).data;
  const results = { out: result(), d_q: result(), d_k: result(), d_v: result() };
  const { seconds } = await program.run({ ...operands, ...results, offsets: Int32Array.of(0, tokens) });
  const { arena, scratch, bound } = program.memory;
  program.dispose();
  return { seconds, planned: arena + scratch + bound };
}

const [tokens, heads] = process.argv.slice(2).map(Number);
// Code, threads and their work space are there before the measurement.
await attend(512, heads!);
const before = residentBytes("VmRSS");
const { seconds, planned } = await attend(tokens!, heads!);
const peak = residentBytes("VmHWM");
const grown = before === undefined || peak === undefined ? {} : { grown: peak - before };
console.log(JSON.stringify({ seconds, planned, ...grown } satisfies LengthResult));
