/** Where a JSON text that comes in pieces stands. */
export type ScanState =
  /** More must come. */
  | "open"
  /** The value is complete; what follows is not part of it. */
  | "done"
  /** What came is no JSON. */
  | "broken";

/**
 * Follows one JSON value, character by character, until it ends: finds its end and its faults without waiting for
 * all of it. Top-level values are objects, arrays or texts; white space within is allowed.
 */
export class JsonScanner {
  /** Closing marks that are still to come. */
  readonly #open: string[] = [];
  /** What may come next. */
  #expect: "value" | "value or ]" | "key" | "key or }" | "colon" | "comma" = "value";
  #string: "no" | "inside" | "escape" | "unicode" = "no";
  #unicodeLeft = 0;
  #stringIsKey = false;
  /** A number or a word being written. */
  #word = "";
  #state: ScanState = "open";

  get state(): ScanState {
    return this.#state;
  }

  /** Takes one character (a UTF-16 unit). Once done or broken it must not be called again. */
  push(character: string): ScanState {
    if (this.#string !== "no") this.#inString(character);
    else if (this.#word !== "") this.#inWord(character);
    else this.#between(character);
    return this.#state;
  }

  #inString(character: string): void {
    switch (this.#string) {
      case "escape":
        if (character === "u") {
          this.#string = "unicode";
          this.#unicodeLeft = 4;
        } else if ('"\\/bfnrt'.includes(character)) this.#string = "inside";
        else this.#state = "broken";
        return;
      case "unicode":
        if (!/[0-9a-fA-F]/.test(character)) this.#state = "broken";
        else if (--this.#unicodeLeft === 0) this.#string = "inside";
        return;
      default:
        if (character === "\\") this.#string = "escape";
        else if (character === '"') {
          this.#string = "no";
          if (this.#stringIsKey) this.#expect = "colon";
          else this.#valueEnded();
        } else if (character < " ") this.#state = "broken";
    }
  }

  #inWord(character: string): void {
    if (/[-+.0-9A-Za-z]/.test(character) && this.#word.length < 400) {
      this.#word += character;
      return;
    }
    if (!/^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)$/.test(this.#word)) {
      this.#state = "broken";
      return;
    }
    this.#word = "";
    this.#valueEnded();
    if (this.#state === "open") this.#between(character);
  }

  #between(character: string): void {
    if (" \n\r\t".includes(character)) return;
    const expect = this.#expect;
    const value = expect === "value" || expect === "value or ]";
    if (value && (character === "{" || character === "[")) {
      this.#open.push(character === "{" ? "}" : "]");
      this.#expect = character === "{" ? "key or }" : "value or ]";
    } else if (character === '"' && (value || expect === "key" || expect === "key or }")) {
      this.#string = "inside";
      this.#stringIsKey = !value;
    } else if (value && this.#open.length > 0 && /[-0-9tfn]/.test(character)) {
      this.#word = character;
    } else if (expect === "colon" && character === ":") {
      this.#expect = "value";
    } else if (expect === "comma" && character === ",") {
      this.#expect = this.#open.at(-1) === "}" ? "key" : "value";
    } else if (
      character === this.#open.at(-1) &&
      (expect === "comma" || expect === (character === "}" ? "key or }" : "value or ]"))
    ) {
      this.#open.pop();
      this.#valueEnded();
    } else {
      this.#state = "broken";
    }
  }

  #valueEnded(): void {
    this.#expect = "comma";
    if (this.#open.length === 0) this.#state = "done";
  }
}
