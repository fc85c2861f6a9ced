import { InternalError } from "../../base/errors.ts";
import { Automaton, bottom, type Configuration } from "./automaton.ts";
import { limits } from "./limits.ts";
import type { Network } from "./network.ts";
import type { Grammar, TokenConstraint } from "./types.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** Bytes of masks that one grammar keeps; past this they are made anew. */
const cachedMaskBytes = 8 << 20;
/** Places in rules that every grammar has, of which the tokens are kept. */
const cachedSharedLocals = 2_000;

/**
 * What is known of tokens at some states of one rule, whatever called it: the tokens that stay within the rule,
 * and the nodes of the trie at which the rule ends, where its callers must say how tokens may go on.
 */
interface LocalTokens {
  /** Where few tokens are allowed: their ids. */
  readonly ids: Int32Array | undefined;
  /** Where many are: a mask of all tokens. */
  readonly mask: Int32Array | undefined;
  readonly endings: TrieNodes;
  /** What it took, whatever was cached. */
  readonly work: number;
}

/** Nodes of the trie, with a number of their own. */
interface TrieNodes {
  readonly id: number;
  readonly nodes: readonly number[];
  /** Whether they come from rules that every grammar has. */
  readonly shared: boolean;
}

/** What a configuration that is new to a walk costs for each place in it, in visits of a node. */
const newConfigurationWork = 16;
let walks = 0;

const rootNodes: TrieNodes = { id: 0, nodes: [0], shared: true };
const noNodes: TrieNodes = { id: 1, nodes: [], shared: true };

/** What all grammars of one vocabulary share: the tokens of rules that every grammar has. */
export class SharedTokens {
  readonly vocabulary: Vocabulary;
  readonly locals = new Map<string, LocalTokens>();
  #nextNodes = 2;

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
  }

  nodes(nodes: readonly number[], shared: boolean): TrieNodes {
    return nodes.length === 0 ? noNodes : { id: this.#nextNodes++, nodes, shared };
  }
}

/**
 * A network bound to a vocabulary: which tokens may follow each configuration. The tokens at a state are worked out
 * by walking the trie once with nothing known about the callers (the idea of XGrammar, arXiv 2411.15100: most tokens
 * do not depend on the stack); only tokens that go on after the end of the rule are looked at again for each caller.
 */
export class BoundGrammar implements Grammar {
  readonly automaton: Automaton;
  readonly vocabulary: Vocabulary;
  readonly #shared: SharedTokens;
  readonly #locals = new Map<string, LocalTokens>();
  /** Special tokens of each of the network's special texts. */
  readonly #specialTokens: readonly (readonly number[])[];
  #maskedConfigurations: Configuration[] = [];
  #localBytes = 0;

  constructor(network: Network, shared: SharedTokens) {
    this.automaton = new Automaton(network);
    this.vocabulary = shared.vocabulary;
    this.#shared = shared;
    this.#specialTokens = network.specialTexts.map((text) => this.vocabulary.specialTokens.get(text) ?? []);
  }

  start(): TokenConstraint {
    return new NetworkConstraint(this);
  }

  /** The mask of the tokens that may follow. Not to be changed. */
  mask(configuration: Configuration): Int32Array {
    if (configuration.mask !== undefined) return configuration.mask;
    const mask = new Int32Array(this.vocabulary.maskWords);
    this.#addTokens(configuration, rootNodes, mask, 0);
    this.#specialTokens.forEach((ids, index) => {
      if (ids.length === 0 || this.automaton.stepSpecial(configuration, index).dead) return;
      for (const id of ids) setBit(mask, id);
    });
    // A vocabulary that cannot spell what must follow leaves nothing but the end.
    if (configuration.complete || mask.every((word) => word === 0)) {
      for (const id of this.vocabulary.endTokens) setBit(mask, id);
    }
    if (this.#maskedConfigurations.length * mask.byteLength >= cachedMaskBytes) {
      for (const old of this.#maskedConfigurations) old.mask = undefined;
      this.#maskedConfigurations = [];
    }
    this.#maskedConfigurations.push(configuration);
    configuration.mask = mask;
    return mask;
  }

  /** Where a token leads; dead where it may not come. */
  step(from: Configuration, token: number): Configuration {
    const bytes = this.vocabulary.bytes(token);
    let configuration = from;
    if (bytes !== undefined) {
      for (const byte of bytes) {
        configuration = this.automaton.step(configuration, byte);
        if (configuration.dead) break;
      }
      return configuration;
    }
    const text = this.vocabulary.special(token);
    const index = text === undefined ? -1 : this.automaton.network.specialTexts.indexOf(text);
    return this.automaton.stepSpecial(from, index);
  }

  /**
   * Adds the tokens below `nodes` that may follow `configuration`, whose bytes up to the nodes are taken. Every level
   * of callers takes a byte of the token at least, so the tokens' length bounds the depth.
   * @returns the work done so far
   */
  #addTokens(configuration: Configuration, nodes: TrieNodes, mask: Int32Array, before: number): number {
    let work = before;
    for (const { frame, states, entered } of configuration.groups) {
      // Rules that were entered here are part of what their callers' states allow.
      if (entered) continue;
      const singleBytes = work > limits.maskWork;
      if (singleBytes && nodes !== rootNodes) return work;
      const local = this.#local(states, nodes, singleBytes);
      work += local.work;
      if (local.mask !== undefined) for (let i = 0; i < mask.length; i++) mask[i]! |= local.mask[i]!;
      if (local.ids !== undefined) for (const id of local.ids) setBit(mask, id);
      if (local.endings.nodes.length > 0 && frame !== bottom) {
        work = this.#addTokens(this.automaton.after(frame), local.endings, mask, work);
      }
    }
    return work;
  }

  #local(states: readonly number[], nodes: TrieNodes, singleBytes: boolean): LocalTokens {
    const alike = states.map((state) => this.#representative(state, nodes === rootNodes));
    const shared = nodes.shared && alike.every((state) => state < this.automaton.network.sharedStates);
    const cache = shared ? this.#shared.locals : this.#locals;
    const key = `${alike.join(",")};${nodes.id}${singleBytes ? "!" : ""}`;
    let local = cache.get(key);
    if (local === undefined) {
      local = this.#walk(this.automaton.configurationOf(alike, bottom), nodes, shared, singleBytes);
      if (shared) {
        if (cache.size >= cachedSharedLocals) cache.clear();
      } else {
        this.#localBytes += 64 + (local.mask ?? local.ids!).byteLength + local.endings.nodes.length * 8;
        if (this.#localBytes > cachedMaskBytes) {
          this.#locals.clear();
          this.#localBytes = 0;
        }
      }
      cache.set(key, local);
    }
    return local;
  }

  /**
   * A state of a counter that no token tells from `state`.
   * @param wholeTokens whether tokens are looked at from their first byte, and not from within
   */
  #representative(state: number, wholeTokens: boolean): number {
    for (const { first, minimum, maximum } of this.automaton.network.counters) {
      if (state < first || state > first + maximum) continue;
      const left = maximum - (state - first);
      const needed = Math.max(0, minimum - (state - first));
      const { stringLengths, longestToken } = this.vocabulary;
      const longest = wholeTokens ? stringLengths.at(-1)! : longestToken;
      if (needed > 0) {
        // Far enough from the upper bound, only the way to the lower one matters.
        const alike =
          needed > longest
            ? longest + 1
            : wholeTokens
              ? stringLengths.find((length) => length >= needed)!
              : needed;
        return left >= longest && alike <= minimum ? first + minimum - alike : state;
      }
      if (left >= longest) return first + maximum - Math.min(maximum - minimum, longest);
      if (!wholeTokens) return state;
      return first + maximum - stringLengths.findLast((length) => length <= left)!;
    }
    return state;
  }

  /**
   * Tokens below `nodes` by an automaton that starts at them. Past the limit of work longer tokens are left out:
   * what is allowed is still right, and single bytes lead on to everything.
   */
  #walk(start: Configuration, nodes: TrieNodes, shared: boolean, singleBytes: boolean): LocalTokens {
    const { nodeByte, nodeDepth, nodeEnd, firstToken, tokens, maskWords } = this.vocabulary;
    const { automaton } = this;
    const mask = new Int32Array(maskWords);
    const endings: number[] = [];
    const path: Configuration[] = [];
    const limit = limits.maskWork + 2 * nodeByte.length;
    const walk = ++walks;
    let allowed = 0;
    let work = 0;
    for (const top of nodes.nodes) {
      path[nodeDepth[top]!] = start;
      const end = nodeEnd[top]!;
      let node = top + 1;
      while (node < end) {
        const depth = nodeDepth[node]!;
        if ((work > limit || singleBytes) && (depth > 1 || (allowed > 0 && work > 4 * limit))) {
          node = nodeEnd[node]!;
          continue;
        }
        const configuration = automaton.step(path[depth - 1]!, nodeByte[node]!);
        // Counted without regard to what is cached, so that the same text always gives the same mask.
        work++;
        if (configuration.walk !== walk) {
          configuration.walk = walk;
          work += newConfigurationWork * configuration.size;
        }
        if (configuration.dead) {
          node = nodeEnd[node]!;
          continue;
        }
        path[depth] = configuration;
        for (let i = firstToken[node]!; i < firstToken[node + 1]!; i++) {
          setBit(mask, tokens[i]!);
          allowed++;
        }
        if (configuration.complete) endings.push(node);
        node = configuration.groups.length > 0 ? node + 1 : nodeEnd[node]!;
      }
    }
    const few = allowed * 2 < maskWords;
    return {
      ids: few ? bitsOf(mask) : undefined,
      mask: few ? undefined : mask,
      endings: this.#shared.nodes(endings, shared),
      work,
    };
  }
}

function setBit(mask: Int32Array, id: number): void {
  mask[id >> 5]! |= 1 << (id & 31);
}

function bitsOf(mask: Int32Array): Int32Array {
  const ids: number[] = [];
  for (let word = 0; word < mask.length; word++) {
    for (let bit = 0; mask[word] !== 0 && bit < 32; bit++) {
      if (((mask[word]! >>> bit) & 1) === 1) ids.push(word * 32 + bit);
    }
  }
  return Int32Array.from(ids);
}

/** One sequence's place in a grammar. */
class NetworkConstraint implements TokenConstraint {
  readonly #grammar: BoundGrammar;
  #configuration: Configuration;
  #ended = false;

  constructor(grammar: BoundGrammar) {
    this.#grammar = grammar;
    this.#configuration = grammar.automaton.start;
  }

  fillMask(mask: Int32Array): void {
    const { vocabulary } = this.#grammar;
    if (this.#ended) {
      mask.fill(0);
      for (const id of vocabulary.endTokens) setBit(mask, id);
      return;
    }
    mask.set(this.#grammar.mask(this.#configuration));
  }

  accept(token: number): void {
    const { vocabulary } = this.#grammar;
    if (vocabulary.endTokens.includes(token)) {
      this.#ended = true;
      return;
    }
    const next = this.#grammar.step(this.#configuration, token);
    if (next.dead || this.#ended) {
      throw new InternalError("a grammar was given a token that it does not allow", {
        received: `token ${token}`,
      });
    }
    this.#configuration = next;
  }
}
