/** What a vocabulary is made from. A ServingEngine is one. */
export interface TokenSource {
  /** Ids are 0 to vocabularySize - 1. */
  readonly vocabularySize: number;
  /** Ids that end a text. */
  readonly endTokens: readonly number[];
  tokenText(id: number): {
    readonly text: string;
    readonly bytes: readonly number[];
    readonly special: boolean;
  };
}

/**
 * The bytes of every token, as a trie: tokens that begin alike are looked at once. Nodes are in preorder, so the
 * tokens and the nodes below a node follow it. Special tokens and end tokens are not part of it: they are no text.
 */
export class Vocabulary {
  readonly size: number;
  /** Words of a mask: 32 tokens each. */
  readonly maskWords: number;
  readonly endTokens: readonly number[];
  /** Special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, readonly number[]>;
  /** Node 0 is the root. The byte of each node, its depth, and the first node that is not below it. */
  readonly nodeByte: Uint8Array;
  readonly nodeDepth: Uint16Array;
  readonly nodeEnd: Int32Array;
  /** Tokens of node n: `tokens[firstToken[n]]` to before `tokens[firstToken[n + 1]]`. */
  readonly firstToken: Int32Array;
  readonly tokens: Int32Array;
  readonly longestToken: number;
  /** Characters of printable ASCII that no token is: JSON cannot be written without them. */
  readonly missingCharacters: string;
  readonly #bytes: (Uint8Array | undefined)[];
  readonly #special: ReadonlyMap<number, string>;

  constructor(source: TokenSource) {
    this.size = source.vocabularySize;
    this.maskWords = Math.ceil(this.size / 32);
    this.endTokens = source.endTokens.filter((id) => id >= 0 && id < this.size);
    const ends = new Set(this.endTokens);
    const special = new Map<number, string>();
    const specialTokens = new Map<string, number[]>();
    this.#bytes = new Array<Uint8Array | undefined>(this.size).fill(undefined);
    const texts: { key: string; id: number }[] = [];
    for (let id = 0; id < this.size; id++) {
      if (ends.has(id)) continue;
      const token = source.tokenText(id);
      if (token.special) {
        special.set(id, token.text);
        const same = specialTokens.get(token.text);
        if (same === undefined) specialTokens.set(token.text, [id]);
        else same.push(id);
      } else if (token.bytes.length > 0) {
        const bytes = Uint8Array.from(token.bytes);
        this.#bytes[id] = bytes;
        texts.push({ key: Buffer.from(bytes).toString("latin1"), id });
      }
    }
    this.#special = special;
    this.specialTokens = specialTokens;
    texts.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : a.id - b.id));

    let nodes = 1;
    let previous = "";
    for (const { key } of texts) {
      nodes += key.length - sharedLength(previous, key);
      previous = key;
    }
    this.nodeByte = new Uint8Array(nodes);
    this.nodeDepth = new Uint16Array(nodes);
    this.nodeEnd = new Int32Array(nodes).fill(nodes);
    this.firstToken = new Int32Array(nodes + 1);
    this.tokens = Int32Array.from(texts, ({ id }) => id);
    this.longestToken = this.#fill(texts);
    const single = new Set(texts.filter(({ key }) => key.length === 1).map(({ key }) => key));
    let missing = "";
    for (let byte = 0x20; byte < 0x7f; byte++) {
      if (!single.has(String.fromCharCode(byte))) missing += String.fromCharCode(byte);
    }
    this.missingCharacters = missing;
  }

  #fill(texts: readonly { key: string }[]): number {
    const path: number[] = [0];
    let next = 1;
    let longest = 0;
    let previous = "";
    texts.forEach(({ key }, index) => {
      const shared = sharedLength(previous, key);
      while (path.length > shared + 1) this.nodeEnd[path.pop()!] = next;
      for (let depth = shared; depth < key.length; depth++) {
        this.nodeByte[next] = key.charCodeAt(depth);
        this.nodeDepth[next] = depth + 1;
        this.firstToken[next] = index;
        path.push(next++);
      }
      // A repeated text adds to the last node.
      this.firstToken[next] = index + 1;
      longest = Math.max(longest, key.length);
      previous = key;
    });
    return longest;
  }

  /** The bytes of a token that is text. */
  bytes(id: number): Uint8Array | undefined {
    return this.#bytes[id];
  }

  /** The text of a special token. */
  special(id: number): string | undefined {
    return this.#special.get(id);
  }
}

function sharedLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  return length;
}
