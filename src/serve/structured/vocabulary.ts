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
  /**
   * The numbers of characters that tokens have as pieces of a JSON string, up to a closing quote, ascending: lengths
   * between two of them are all the same to every token that begins with a character.
   */
  readonly stringLengths: readonly number[];
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
    const lengths = new Set([0, ...texts.map(({ key }) => charactersInString(key))]);
    this.stringLengths = [...lengths].sort((a, b) => a - b);
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

/** Characters of a JSON string that bytes (as Latin-1) hold or begin, before a closing quote. */
function charactersInString(bytes: string): number {
  let count = 0;
  for (let i = 0; i < bytes.length && bytes[i] !== '"'; count++) {
    const byte = bytes.charCodeAt(i);
    if (byte < 0x80) i += byte === 0x5c ? escapeLength(bytes, i) : 1;
    else i += byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
  }
  return count;
}

function escapeLength(bytes: string, at: number): number {
  if (bytes[at + 1] !== "u") return 2;
  // Two escapes of surrogates are one character.
  return /^[dD][89abAB]/.test(bytes.slice(at + 2, at + 4)) ? 12 : 6;
}

function sharedLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  return length;
}
