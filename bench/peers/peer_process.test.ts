import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { matmulModel } from "./onnx_model.ts";
import { describeAbsence, PeerProcess } from "./peer_process.ts";
import { blasWarning, startOnnxPeer, startTorchPeer } from "./peers.ts";

/** A peer whose program is given as JavaScript that sees each request as `request`. */
async function scripted(body: string): ReturnType<typeof PeerProcess.start> {
  const program = `
    require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
      const request = JSON.parse(line);
      const reply = (answer) => console.log(JSON.stringify({ id: request.id, ...answer }));
      if (request.task === "info") reply({ ok: true, torch: "test" });
      else { ${body} }
    });`;
  return await PeerProcess.start({
    name: "a test peer",
    command: process.execPath,
    arguments: ["-e", program],
    install: "npm install it",
  });
}

async function running(body: string): Promise<PeerProcess> {
  const peer = await scripted(body);
  if (!peer.present) throw new Error(describeAbsence(peer));
  return peer;
}

const small = { task: "matmul", threads: 2, dtype: "f32", m: 70, n: 35, k: 51, repetitions: 2 } as const;

test("a command that does not exist is an absent peer that says how to install it", async () => {
  const peer = await PeerProcess.start({
    name: "nothing",
    command: "/no/such/program",
    arguments: [],
    install: "apt-get install nothing",
  });
  if (peer.present) throw new Error("it cannot be present");
  expect(describeAbsence(peer)).toBe(
    "peer absent: nothing (spawn /no/such/program ENOENT); to install: apt-get install nothing",
  );
});

test("a Python without PyTorch is an absent peer with Python's own words", async () => {
  const peer = await PeerProcess.start({
    name: "PyTorch",
    command: process.execPath,
    arguments: ["-e", `console.log('{"id":0,"ok":false,"error":"No module named torch"}'); process.exit(3)`],
    install: "apt-get install python3-torch",
  });
  expect(peer).toMatchObject({ present: false, reason: "No module named torch" });
});

test("requests that are made at once are answered in order", async () => {
  const peer = await running("setTimeout(() => reply({ ok: true, gflops: request.m }), 30 - request.m)");
  const answers = await Promise.all([5, 20, 10].map((m) => peer.request({ ...small, m })));
  expect(answers.map((answer) => answer.gflops)).toEqual([5, 20, 10]);
  await peer.close();
});

test("a failed task rejects with the peer's error, and the peer goes on", async () => {
  const peer = await running(`reply(request.m === 1 ? { ok: false, error: "too small" } : { ok: true })`);
  await expect(peer.request({ ...small, m: 1 })).rejects.toThrow("too small");
  await expect(peer.request(small)).resolves.toMatchObject({ ok: true });
  await peer.close();
});

test("a peer that dies in mid-request rejects with its last words", async () => {
  const peer = await running(
    `console.error("out of memory"); process.exitCode = 1; process.stdin.destroy();`,
  );
  await expect(peer.request(small)).rejects.toThrow("a test peer ended without an answer: out of memory");
  await peer.close();
});

test("the ONNX model's bytes are what protocol buffers prescribe", () => {
  const model = Buffer.from(matmulModel({ m: 2, n: 300, k: 3 })).toString("hex");
  // By hand: ir_version 8; NodeProto A, B -> C named "matmul" of type "MatMul"; graph name "matmul".
  const node = "0a01410a0142120143" + "1a066d61746d756c" + "22064d61744d756c";
  const shapeOf = (name: string, first: string, second: string): string => {
    const shape = `0a${half(first)}${first}0a${half(second)}${second}`;
    const tensor = `080112${half(shape)}${shape}`;
    const type = `0a${half(tensor)}${tensor}`;
    return `0a01${name}12${half(type)}${type}`;
  };
  const half = (hex: string): string => (hex.length / 2).toString(16).padStart(2, "0");
  const a = shapeOf("41", "0802", "0803");
  const b = shapeOf("42", "0803", "08ac02"); // 300 = 0b10_0101100
  const c = shapeOf("43", "0802", "08ac02");
  const graph = `0a${half(node)}${node}12066d61746d756c5a${half(a)}${a}5a${half(b)}${b}62${half(c)}${c}`;
  expect(model).toBe(`08083a${half(graph)}${graph}42040a00100d`);
});

const onnxInstalled = existsSync(new URL("node_modules/onnxruntime-node", import.meta.url));
test.skipIf(!onnxInstalled)("onnxruntime multiplies both kinds of model (it checks its result)", async () => {
  const peer = await startOnnxPeer();
  if (!peer.present) throw new Error(describeAbsence(peer));
  expect((await peer.request(small)).seconds).toHaveLength(2);
  expect((await peer.request({ ...small, constant_b: true })).seconds).toHaveLength(2);
  await expect(peer.request({ ...small, dtype: "bf16" })).rejects.toThrow("float32 matmul alone");
  await peer.close();
});

test.skipIf(onnxInstalled)("onnxruntime that is not installed says which command installs it", async () => {
  const peer = await startOnnxPeer();
  if (peer.present) throw new Error("it is not installed");
  expect(describeAbsence(peer)).toMatch(/^peer absent: onnxruntime-node \(.*\); to install: npm --prefix/);
});

test("PyTorch multiplies, attends and trains, where it is installed", async (context) => {
  const peer = await startTorchPeer();
  if (!peer.present) return context.skip(describeAbsence(peer));
  for (const dtype of ["f32", "bf16"] as const) {
    expect((await peer.request({ ...small, dtype, transpose_b: true })).seconds).toHaveLength(2);
  }
  const shape = { task: "attention", threads: 2, dtype: "f32", batch: 1, heads: 4, kv_heads: 2 } as const;
  const attention = { ...shape, tokens: 33, head_dim: 8, repetitions: 3, backward: true };
  expect((await peer.request(attention)).forward_seconds).toHaveLength(3);
  const config = { dim: 32, layers: 2, heads: 4, kv_heads: 2, ffn: 44, vocabulary: 50 };
  const request = {
    task: "train",
    threads: 2,
    dtype: "bf16",
    config,
    batch: 2,
    sequence: 9,
    steps: 3,
  } as const;
  const first = await peer.request(request);
  // Embedding and head 2 x 50 x 32; a layer 2 x 32 norms, q and o 2 x 32 x 32, k and v 2 x 16 x 32, ffn 3 x 44 x 32.
  expect(first.parameters).toBe(2 * 50 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 44 * 32));
  expect(first.losses[0]).toBeCloseTo(Math.log(50), 1);
  const second = await peer.request(request);
  expect(second.losses.at(-1)).toBeLessThan(first.losses[0]!);
  expect(blasWarning(peer) === undefined).toBe(peer.info.blas_is_reference !== true);
  await peer.close();
});
