/**
 * An ONNX model of one MatMul, written byte by byte, so that no exporter is needed. The format is
 * protocol buffers by https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the numbers below are its
 * field numbers.
 */

const float32Type = 1;
const irVersion = 8;
const opsetVersion = 13;

/** B of a model that has it as a constant: [k, n], row-major. */
export interface MatmulShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly constantB?: Float32Array;
}

/** The bytes of a model that computes C [m, n] = A [m, k] B [k, n]; B is an input unless it is given. */
export function matmulModel({ m, n, k, constantB }: MatmulShape): Uint8Array {
  const node = [text(1, "A"), text(1, "B"), text(2, "C"), text(3, "matmul"), text(4, "MatMul")];
  const graph = [message(1, node), text(2, "matmul")];
  if (constantB !== undefined) {
    const raw = Buffer.from(constantB.buffer, constantB.byteOffset, constantB.byteLength);
    const tensor = [integer(1, k), integer(1, n), integer(2, float32Type), text(8, "B"), bytes(9, raw)];
    graph.push(message(5, tensor));
  }
  graph.push(message(11, valueInfo("A", [m, k])));
  if (constantB === undefined) graph.push(message(11, valueInfo("B", [k, n])));
  graph.push(message(12, valueInfo("C", [m, n])));
  return Buffer.concat([
    integer(1, irVersion),
    message(7, graph),
    message(8, [text(1, ""), integer(2, opsetVersion)]),
  ]);
}

/** ValueInfoProto of a float32 tensor: name and shape. */
function valueInfo(name: string, shape: readonly number[]): Buffer[] {
  const dimensions = shape.map((size) => message(1, [integer(1, size)]));
  const tensorType = [integer(1, float32Type), message(2, dimensions)];
  return [text(1, name), message(2, [message(1, tensorType)])];
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  while (rest >= 128) {
    out.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  out.push(rest);
  return Buffer.from(out);
}

function integer(field: number, value: number): Buffer {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

function bytes(field: number, value: Buffer): Buffer {
  return Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);
}

function text(field: number, value: string): Buffer {
  return bytes(field, Buffer.from(value, "utf8"));
}

function message(field: number, parts: readonly Buffer[]): Buffer {
  return bytes(field, Buffer.concat(parts));
}
