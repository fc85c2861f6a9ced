import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { PeerAnswers, PeerInfo, PeerRequest } from "./protocol.ts";

/** A peer that cannot be run here, with what would make it run; benchmarks print it and go on. */
export interface AbsentPeer {
  readonly present: false;
  readonly name: string;
  /** Why, on one line. */
  readonly reason: string;
  /** The command that installs it. */
  readonly install: string;
}

/** How to start a peer, and what to say where it cannot be started. */
export interface PeerCommand {
  readonly name: string;
  readonly command: string;
  readonly arguments: readonly string[];
  readonly install: string;
}

/** The line that a benchmark prints for a peer that is not there. */
export function describeAbsence(peer: AbsentPeer): string {
  return `peer absent: ${peer.name} (${peer.reason}); to install: ${peer.install}`;
}

/** A running peer. Requests are answered in order, one at a time. */
export class PeerProcess {
  readonly present = true;
  readonly name: string;
  /** What the peer said of itself when it started. */
  info: PeerInfo = {};
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: Interface;
  readonly #answers: AsyncIterator<string>;
  readonly #ended: Promise<unknown>;
  #lastWords = "";
  #requests = 0;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(command: PeerCommand, child: ChildProcessByStdio<Writable, Readable, Readable>) {
    this.name = command.name;
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout });
    this.#answers = this.#lines[Symbol.asyncIterator]();
    this.#ended = once(child, "close");
    // A peer that died shows in the missing answer; a broken pipe says no more.
    child.stdin.on("error", () => {});
    child.stderr.setEncoding("utf8");
    child.stderr.on("data", (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-2000);
    });
  }

  /** Starts a peer and asks who it is; resolves to an AbsentPeer where that fails, and never rejects. */
  static async start(command: PeerCommand): Promise<PeerProcess | AbsentPeer> {
    const absent = (reason: string): AbsentPeer => ({
      present: false,
      name: command.name,
      reason,
      install: command.install,
    });
    const child = spawn(command.command, [...command.arguments], { stdio: ["pipe", "pipe", "pipe"] });
    try {
      await once(child, "spawn");
    } catch (fault) {
      return absent(messageOf(fault));
    }
    const peer = new PeerProcess(command, child);
    try {
      peer.info = await peer.request({ task: "info" });
      return peer;
    } catch (fault) {
      await peer.close();
      return absent(messageOf(fault));
    }
  }

  /** Sends one request and resolves to its answer; rejects with the peer's own words where it failed. */
  request<Request extends PeerRequest>(request: Request): Promise<PeerAnswers[Request["task"]]> {
    const turn = this.#queue.then(async () => await this.#exchange(request));
    this.#queue = turn.catch(() => {});
    return turn as Promise<PeerAnswers[Request["task"]]>;
  }

  /** Ends the process and waits for its end. */
  async close(): Promise<void> {
    this.#child.stdin.end();
    this.#lines.close();
    this.#child.kill();
    await this.#ended;
  }

  async #exchange(request: PeerRequest): Promise<unknown> {
    this.#requests += 1;
    const id = this.#requests;
    this.#child.stdin.write(`${JSON.stringify({ id, ...request })}\n`);
    const line = await this.#answers.next();
    if (line.done === true) {
      await this.#ended;
      const words = this.#lastWords.trim().split("\n").at(-1) ?? "";
      throw new Error(`${this.name} ended without an answer${words === "" ? "" : `: ${words}`}`);
    }
    const answer: unknown = JSON.parse(line.value);
    if (typeof answer !== "object" || answer === null || !("ok" in answer)) {
      throw new Error(`${this.name} answered ${JSON.stringify(line.value.slice(0, 200))}`);
    }
    if (answer.ok !== true) {
      throw new Error("error" in answer ? String(answer.error) : `${this.name} failed`);
    }
    if (!("id" in answer) || answer.id !== id) {
      throw new Error(`${this.name} answered another request than ${id}`);
    }
    return answer;
  }
}

function messageOf(fault: unknown): string {
  return fault instanceof Error ? fault.message : String(fault);
}
