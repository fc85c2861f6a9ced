import { InternalError } from "../../base/errors.ts";
import type { Network } from "./network.ts";

/** What follows when a called rule ends: the callers' states, each with what follows theirs. */
export interface Frame {
  readonly id: number;
  readonly states: readonly number[];
  readonly frames: readonly Frame[];
  /** Where one is when the rule ends, once it was asked for. */
  after: Configuration | undefined;
}

/** States that share what follows their rule's end. */
export interface Group {
  readonly frame: Frame;
  readonly states: readonly number[];
  /** Whether all of them are only here because states of another group call their rules. */
  readonly entered: boolean;
}

/** All places of the network where a text read so far can be. Equal sets are one object while they are cached. */
export class Configuration {
  readonly id: number;
  readonly groups: readonly Group[];
  /** Whether the text may end here. */
  readonly complete: boolean;
  /** Nothing may follow, and the text may not end. */
  readonly dead: boolean;
  /** Places: what a step from here costs. */
  readonly size: number;
  /** By class of bytes; undefined where not yet known. */
  readonly next: (Configuration | undefined)[];
  /** The mask of this configuration, and the last walk that met it: kept by who computes masks. */
  mask: Int32Array | undefined = undefined;
  walk = 0;

  constructor(id: number, groups: readonly Group[], complete: boolean, classes: number) {
    this.id = id;
    this.groups = groups;
    this.complete = complete;
    this.dead = groups.length === 0 && !complete;
    this.size = groups.reduce((sum, group) => sum + group.states.length, 0);
    this.next = new Array<Configuration | undefined>(classes).fill(undefined);
  }
}

/** Nothing follows: the end of the whole text, or of the part of it that is looked at. */
export const bottom: Frame = { id: 0, states: [], frames: [], after: undefined };

/** Cached configurations; past this many the cache begins anew. */
const cachedConfigurations = 20_000;

/**
 * Runs a network over bytes: a set of pushdown configurations, made deterministic as texts come. Callers of one
 * rule at one place of the text share a frame (as in a graph-structured stack, Tomita 1985), so ambiguous grammars
 * stay polynomial.
 */
export class Automaton {
  readonly network: Network;
  /** The class of each byte: bytes of one class lead to the same places from everywhere. */
  readonly classes: Uint8Array;
  readonly classCount: number;
  readonly start: Configuration;
  readonly #representatives: number[];
  /** Whether nothing remains to be done in a state but to end its rule. */
  readonly #onlyEnds: Uint8Array;
  readonly #isEnd: Uint8Array;
  #configurations = new Map<string, Configuration>();
  #frames = new Map<string, Frame>();
  #nextFrame = 1;
  #nextConfiguration = 0;

  constructor(network: Network) {
    this.network = network;
    const { classes, representatives } = byteClasses(network);
    this.classes = classes;
    this.#representatives = representatives;
    this.classCount = representatives.length;
    const states = network.bytes.length;
    this.#isEnd = new Uint8Array(states);
    this.#onlyEnds = new Uint8Array(states);
    for (const end of network.ends) {
      this.#isEnd[end] = 1;
      const leaves = network.bytes[end]!.length + network.empty[end]!.length + network.calls[end]!.length;
      if (leaves + network.specials[end]!.length === 0) this.#onlyEnds[end] = 1;
    }
    this.start = this.configurationOf([network.starts[network.root]!], bottom);
  }

  /** Where one is at `states`, with `frame` behind them. */
  configurationOf(states: readonly number[], frame: Frame): Configuration {
    return this.#close(
      states,
      states.map(() => frame),
    );
  }

  /** Where one is after a frame's rule ended: at its callers. */
  after(frame: Frame): Configuration {
    frame.after ??= this.#close(frame.states, frame.frames);
    return frame.after;
  }

  /** Where a byte leads. */
  step(from: Configuration, byte: number): Configuration {
    const byteClass = this.classes[byte]!;
    const known = from.next[byteClass];
    if (known !== undefined) return known;
    const representative = this.#representatives[byteClass]!;
    const states: number[] = [];
    const frames: Frame[] = [];
    for (const group of from.groups) {
      for (const state of group.states) {
        const row = this.network.bytes[state]!;
        for (let i = 0; i < row.length; i += 3) {
          if (representative < row[i]! || representative > row[i + 1]!) continue;
          states.push(row[i + 2]!);
          frames.push(group.frame);
        }
      }
    }
    const next = this.#close(states, frames);
    from.next[byteClass] = next;
    return next;
  }

  /** Where a special token leads. @param index in the network's `specialTexts` */
  stepSpecial(from: Configuration, index: number): Configuration {
    const states: number[] = [];
    const frames: Frame[] = [];
    for (const group of from.groups) {
      for (const state of group.states) {
        const row = this.network.specials[state]!;
        for (let i = 0; i < row.length; i += 2) {
          if (row[i] !== index) continue;
          states.push(row[i + 1]!);
          frames.push(group.frame);
        }
      }
    }
    return this.#close(states, frames);
  }

  /** All places that can be reached without a byte, rules entered and left; those with edges to go on are kept. */
  #close(seedStates: readonly number[], seedFrames: readonly Frame[]): Configuration {
    const { network } = this;
    const states = seedStates.slice();
    const frames = seedFrames.slice();
    const stateCount = network.bytes.length;
    const seen = new Set<number>();
    const groups = new Map<Frame, number[]>();
    /** Frames that were there before, and those of rules entered here. */
    const given = new Set(seedFrames);
    const entered = new Set<Frame>();
    /** Callers of rules that are yet to be entered. */
    const pending = new Map<number, { states: number[]; frames: Frame[] }>();
    let complete = false;
    for (;;) {
      while (states.length > 0) {
        const state = states.pop()!;
        const frame = frames.pop()!;
        const key = frame.id * stateCount + state;
        if (seen.has(key)) continue;
        seen.add(key);
        for (const target of network.empty[state]!) {
          states.push(target);
          frames.push(frame);
        }
        if (this.#isEnd[state] === 1) {
          if (frame === bottom) complete = true;
          for (let i = 0; i < frame.states.length; i++) {
            states.push(frame.states[i]!);
            frames.push(frame.frames[i]!);
            given.add(frame.frames[i]!);
          }
        }
        const calls = network.calls[state]!;
        for (let i = 0; i < calls.length; i += 2) this.#addCaller(pending, calls[i]!, calls[i + 1]!, frame);
        if (network.bytes[state]!.length + network.specials[state]!.length + calls.length > 0) {
          const group = groups.get(frame);
          if (group === undefined) groups.set(frame, [state]);
          else group.push(state);
        }
      }
      // Of the rules to enter, the one that no other of them begins with: all its callers are known.
      let rule = -1;
      for (const candidate of pending.keys()) {
        if (rule < 0 || network.order[candidate]! < network.order[rule]!) rule = candidate;
      }
      if (rule < 0) break;
      const callers = pending.get(rule)!;
      pending.delete(rule);
      const frame = this.#frame(callers.states, callers.frames);
      entered.add(frame);
      states.push(network.starts[rule]!);
      frames.push(frame);
    }
    for (const frame of given) entered.delete(frame);
    return this.#intern(groups, entered, complete);
  }

  #addCaller(
    pending: Map<number, { states: number[]; frames: Frame[] }>,
    rule: number,
    target: number,
    frame: Frame,
  ): void {
    let callers = pending.get(rule);
    if (callers === undefined) {
      callers = { states: [], frames: [] };
      pending.set(rule, callers);
    }
    if (this.#onlyEnds[target] === 1 && frame !== bottom) {
      // A call in the last place: its end is its caller's end.
      callers.states.push(...frame.states);
      callers.frames.push(...frame.frames);
    } else {
      callers.states.push(target);
      callers.frames.push(frame);
    }
  }

  #frame(states: readonly number[], frames: readonly Frame[]): Frame {
    const order = states
      .map((_, index) => index)
      .sort((a, b) => states[a]! - states[b]! || frames[a]!.id - frames[b]!.id);
    let key = "";
    const uniqueStates: number[] = [];
    const uniqueFrames: Frame[] = [];
    for (const index of order) {
      if (states[index] === uniqueStates.at(-1) && frames[index] === uniqueFrames.at(-1)) continue;
      uniqueStates.push(states[index]!);
      uniqueFrames.push(frames[index]!);
      key += `${states[index]}:${frames[index]!.id},`;
    }
    let frame = this.#frames.get(key);
    if (frame === undefined) {
      frame = { id: this.#nextFrame++, states: uniqueStates, frames: uniqueFrames, after: undefined };
      this.#frames.set(key, frame);
    }
    return frame;
  }

  #intern(
    found: ReadonlyMap<Frame, number[]>,
    entered: ReadonlySet<Frame>,
    complete: boolean,
  ): Configuration {
    const groups = [...found].sort(([a], [b]) => a.id - b.id);
    let key = complete ? "+" : "-";
    for (const [frame, states] of groups) {
      states.sort((a, b) => a - b);
      key += `${frame.id}${entered.has(frame) ? "e" : ":"}${states.join(",")};`;
    }
    let configuration = this.#configurations.get(key);
    if (configuration === undefined) {
      if (this.#configurations.size >= cachedConfigurations) {
        // Sequences keep what they stand on; numbers are never used again, so old and new do not mix.
        this.#configurations = new Map();
        this.#frames = new Map();
      }
      configuration = new Configuration(
        this.#nextConfiguration++,
        groups.map(([frame, states]) => ({ frame, states, entered: entered.has(frame) })),
        complete,
        this.classCount,
      );
      this.#configurations.set(key, configuration);
    }
    return configuration;
  }
}

/** Classes of bytes that no edge tells apart. */
function byteClasses(network: Network): { classes: Uint8Array; representatives: number[] } {
  const begins = new Uint8Array(257);
  begins[0] = 1;
  for (const row of network.bytes) {
    for (let i = 0; i < row.length; i += 3) {
      begins[row[i]!] = 1;
      begins[row[i + 1]! + 1] = 1;
    }
  }
  const classes = new Uint8Array(256);
  const representatives: number[] = [];
  for (let byte = 0; byte < 256; byte++) {
    if (begins[byte] === 1) representatives.push(byte);
    classes[byte] = representatives.length - 1;
  }
  if (representatives.length === 0) throw new InternalError("a grammar has no class of bytes");
  return { classes, representatives };
}
