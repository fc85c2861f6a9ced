import type { PeerProcess } from "../peers/peer_process.ts";
import { type AbsentPeer, describeAbsence } from "../peers/peer_process.ts";
import { blasWarning, startOnnxPeer, startTorchPeer } from "../peers/peers.ts";

/** The peers of a suite: undefined where absent, which has been told. */
export interface Peers {
  readonly torch: PeerProcess | undefined;
  readonly onnx: PeerProcess | undefined;
  /** To be noted beside PyTorch's float32 where it is no fair peer. */
  readonly blasWarning: string | undefined;
}

/** Which peers a suite compares with. */
export interface WantedPeers {
  readonly torch?: boolean;
  readonly onnx?: boolean;
}

const starters = {
  torch: () => startTorchPeer(),
  onnx: () => startOnnxPeer(),
} as const satisfies Record<string, () => Promise<PeerProcess | AbsentPeer>>;

/**
 * Runs `body` with the wanted peers and ends them afterwards. Never fails because of a peer: one that is
 * absent is noted, with how to install it.
 */
export async function withPeers(
  wanted: WantedPeers,
  note: (line: string) => void,
  body: (peers: Peers) => Promise<void>,
): Promise<void> {
  const started: PeerProcess[] = [];
  const start = async (name: keyof typeof starters): Promise<PeerProcess | undefined> => {
    if (wanted[name] !== true) return undefined;
    const peer = await starters[name]();
    if (!peer.present) {
      note(describeAbsence(peer));
      return undefined;
    }
    started.push(peer);
    const { torch, onnxruntime, blas } = peer.info;
    note(`peer: ${peer.name} ${torch ?? onnxruntime ?? ""}${blas === undefined ? "" : ` (BLAS: ${blas})`}`);
    return peer;
  };
  try {
    const torch = await start("torch");
    const onnx = await start("onnx");
    await body({ torch, onnx, blasWarning: torch === undefined ? undefined : blasWarning(torch) });
  } finally {
    for (const peer of started) await peer.close();
  }
}
