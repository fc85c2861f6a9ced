import { JsonScanner } from "./json_scanner.ts";

/** What a reader learned from the characters since it was last asked. */
export interface CallProgress {
  /** The function's name, the first time that it is certain that there is a call. */
  readonly name?: string;
  readonly arguments: string;
}

/**
 * Reads one call, `{"name": …, "arguments": {…}}` or with `parameters`, character by character. Other texts, objects
 * and arrays beside them (such as an id) are passed over.
 */
export class CallReader {
  readonly #accepts: (name: string) => boolean;
  readonly #stream: boolean;
  #phase: "start" | "first key" | "key" | "in key" | "colon" | "value" | "in value" | "comma" = "start";
  #scanner = new JsonScanner();
  /** The key or value being read, and the key whose value is read. */
  #raw = "";
  #key = "";
  #name: string | undefined;
  #arguments: string | undefined;
  /** What was told of it. */
  #toldName = false;
  #toldArguments = 0;

  /**
   * @param accepts whether a name is one of a function
   * @param stream whether arguments are told before the call is complete
   */
  constructor(accepts: (name: string) => boolean, stream: boolean) {
    this.#accepts = accepts;
    this.#stream = stream;
  }

  /** Whether the name was told: the call cannot be taken back. */
  get began(): boolean {
    return this.#toldName;
  }

  /** Takes one character. "done" at the last brace; "broken" where this is no call. */
  push(character: string): "open" | "done" | "broken" {
    const blank = " \n\r\t".includes(character);
    switch (this.#phase) {
      case "start":
        if (character !== "{") return "broken";
        this.#phase = "first key";
        return "open";
      case "first key":
      case "key":
        if (blank) return "open";
        if (character !== '"') return "broken";
        this.#begin("in key");
        return this.#scan(character);
      case "colon":
        if (blank) return "open";
        this.#phase = "value";
        return character === ":" ? "open" : "broken";
      case "value":
        if (blank) return "open";
        if (this.#isArguments() && (character !== "{" || this.#arguments !== undefined)) return "broken";
        if (this.#key === "name" && (character !== '"' || this.#name !== undefined)) return "broken";
        this.#begin("in value");
        if (this.#isArguments()) this.#arguments = "";
        return this.#scan(character);
      case "in key":
      case "in value":
        return this.#scan(character);
      case "comma":
        if (blank) return "open";
        if (character === ",") {
          this.#phase = "key";
          return "open";
        }
        if (character !== "}" || this.#name === undefined) return "broken";
        this.#arguments ??= "{}";
        return "done";
    }
  }

  /** What is new and certain. @param done whether the call is complete */
  progress(done: boolean): CallProgress {
    const ready = this.#name !== undefined && this.#arguments !== undefined && (this.#stream || done);
    if (!ready) return { arguments: "" };
    const piece = this.#arguments!.slice(this.#toldArguments);
    this.#toldArguments = this.#arguments!.length;
    if (this.#toldName) return { arguments: piece };
    this.#toldName = true;
    return { name: this.#name!, arguments: piece };
  }

  #isArguments(): boolean {
    return this.#key === "arguments" || this.#key === "parameters";
  }

  #begin(phase: "in key" | "in value"): void {
    this.#phase = phase;
    this.#scanner = new JsonScanner();
    this.#raw = "";
  }

  #scan(character: string): "open" | "broken" {
    const state = this.#scanner.push(character);
    if (state === "broken") return "broken";
    this.#raw += character;
    if (this.#phase === "in value" && this.#isArguments()) this.#arguments = this.#raw;
    if (state === "open") return "open";
    if (this.#phase === "in key") {
      this.#key = JSON.parse(this.#raw) as string;
      this.#phase = "colon";
      return "open";
    }
    if (this.#key === "name") {
      const name = JSON.parse(this.#raw) as string;
      if (!this.#accepts(name)) return "broken";
      this.#name = name;
    }
    this.#phase = "comma";
    return "open";
  }
}
