import { fileURLToPath } from "node:url";
import { type AbsentPeer, PeerProcess } from "./peer_process.ts";

/** Starts PyTorch (Debian's by default), or says how to install it. */
export function startTorchPeer(python = "/usr/bin/python3"): Promise<PeerProcess | AbsentPeer> {
  return PeerProcess.start({
    name: "PyTorch",
    command: python,
    arguments: [fileURLToPath(new URL("torch_peer.py", import.meta.url))],
    install: "apt-get install python3-torch libopenblas0-pthread",
  });
}

/** Starts onnxruntime-node in a process of its own, or says how to install it. */
export function startOnnxPeer(): Promise<PeerProcess | AbsentPeer> {
  return PeerProcess.start({
    name: "onnxruntime-node",
    command: process.execPath,
    arguments: [fileURLToPath(new URL("onnx_peer.ts", import.meta.url))],
    install: "npm --prefix bench/peers run setup",
  });
}

/** Starts node-llama-cpp, its CPU package, in a process of its own, or says how to install it. */
export function startLlamaPeer(): Promise<PeerProcess | AbsentPeer> {
  return PeerProcess.start({
    name: "node-llama-cpp",
    command: process.execPath,
    arguments: [fileURLToPath(new URL("llama_peer.ts", import.meta.url))],
    install: "npm --prefix bench/peers run setup",
  });
}

/**
 * A warning to print beside float32 ratios where PyTorch runs on the reference BLAS (Debian's PyTorch
 * without OpenBLAS), or undefined where the comparison is fair.
 */
export function blasWarning(peer: PeerProcess): string | undefined {
  if (peer.info.blas_is_reference !== true) return undefined;
  return `PyTorch's float32 runs on the reference BLAS (${peer.info.blas}), about a hundred times slower than the machine: no fair peer. To install OpenBLAS: apt-get install libopenblas0-pthread`;
}
