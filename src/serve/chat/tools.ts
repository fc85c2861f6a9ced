import { randomBytes } from "node:crypto";
import { CallReader } from "./call_reader.ts";
import type { ToolCallEvent, ToolCallParser, ToolFormat } from "./types.ts";

/** The marks of each format: what opens calls, and what closes one. */
const marks: Readonly<Record<ToolFormat, { readonly open: string; readonly close?: string }>> = {
  hermes: { open: "<tool_call>", close: "</tool_call>" },
  llama3_json: { open: "<|python_tag|>" },
  mistral: { open: "[TOOL_CALLS]" },
};

/**
 * How a model writes calls, from the text of its chat template; undefined where it shows none that is known.
 */
export function detectToolFormat(template: string | undefined): ToolFormat | undefined {
  if (template === undefined || !/\btools\b/.test(template)) return undefined;
  if (template.includes("[TOOL_CALLS]")) return "mistral";
  if (template.includes("<tool_call>")) return "hermes";
  if (template.includes("<|python_tag|>") || /"parameters":/.test(template)) return "llama3_json";
  return undefined;
}

/**
 * Whether the marks of a format may be special tokens, which the engine leaves out of the text unless it is told
 * `skipSpecialTokens: false`.
 */
export function marksAreSpecial(format: ToolFormat): boolean {
  return format !== "hermes";
}

export interface ToolCallParserOptions {
  /** Names of the functions; what calls another is text. Any name by default. */
  readonly tools?: readonly string[];
  /** Makes the id of a call. */
  readonly createId?: () => string;
  /**
   * Whether arguments are told as they come (true by default). A call that turns out malformed after that keeps what
   * was told, and the rest of it is text. With false each call is told when it is complete, and malformed ones are text.
   */
  readonly stream?: boolean;
}

/** Splits an answer into text and calls. Malformed calls are text. */
export function createToolCallParser(
  format: ToolFormat,
  options: ToolCallParserOptions = {},
): ToolCallParser {
  return new MarkedCallParser(format, options);
}

/** Ids as OpenAI's; Mistral's templates ask for nine letters and digits. */
function newId(format: ToolFormat): string {
  return format === "mistral"
    ? randomBytes(16).toString("hex").slice(0, 9)
    : `call_${randomBytes(12).toString("hex")}`;
}

type Mode =
  /** Text; a mark may come. */
  | "text"
  /** Behind a mark, or at the beginning where calls need none: a call may begin. */
  | "before call"
  | "call"
  /** Behind a call: what closes it, or another one. */
  | "after call"
  /** Behind what closes it: another mark, or text. White space in between is dropped if a mark follows. */
  | "closed";

class MarkedCallParser implements ToolCallParser {
  readonly #format: ToolFormat;
  readonly #open: string;
  readonly #close: string;
  readonly #createId: () => string;
  readonly #accepts: (name: string) => boolean;
  readonly #stream: boolean;
  #mode: Mode;
  /** What is not yet looked at. */
  #rest = "";
  /** What was looked at and becomes text should no call come of it. */
  #held = "";
  /** Whether the list of Mistral's calls is open. */
  #inList = false;
  #reader: CallReader;
  #calls = 0;
  #events: ToolCallEvent[] = [];

  constructor(format: ToolFormat, options: ToolCallParserOptions) {
    this.#format = format;
    this.#open = marks[format].open;
    this.#close = marks[format].close ?? "";
    this.#createId = options.createId ?? (() => newId(format));
    const names = options.tools === undefined ? undefined : new Set(options.tools);
    this.#accepts = (name) => names?.has(name) ?? true;
    this.#stream = options.stream ?? true;
    this.#reader = this.#newReader();
    // A Llama answer that is nothing but a call has no mark.
    this.#mode = format === "llama3_json" ? "before call" : "text";
  }

  get calls(): number {
    return this.#calls;
  }

  push(text: string): ToolCallEvent[] {
    this.#rest += text;
    while (this.#step()) {
      // Until more must come.
    }
    if (this.#mode === "call") this.#tell(false);
    return this.#take();
  }

  finish(): ToolCallEvent[] {
    if (this.#mode === "call" && this.#reader.began) this.#tell(false);
    // White space behind calls says nothing.
    const left = this.#held + this.#rest;
    this.#held = "";
    this.#rest = "";
    if (!((this.#mode === "closed" || this.#mode === "after call") && left.trim() === "")) this.#text(left);
    this.#mode = "text";
    return this.#take();
  }

  #newReader(): CallReader {
    return new CallReader(this.#accepts, this.#stream);
  }

  #take(): ToolCallEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  #text(text: string): void {
    if (text === "") return;
    const last = this.#events.at(-1);
    if (last?.type === "text")
      this.#events[this.#events.length - 1] = { type: "text", text: last.text + text };
    else this.#events.push({ type: "text", text });
  }

  /** Goes on by what is certain. Returns whether anything was. */
  #step(): boolean {
    if (this.#rest === "") return false;
    switch (this.#mode) {
      case "text":
        return this.#inText();
      case "before call":
        return this.#beforeCall();
      case "call":
        return this.#inCall();
      case "after call":
        return this.#afterCall();
      case "closed":
        return this.#closed();
    }
  }

  #inText(): boolean {
    const at = this.#rest.indexOf(this.#open);
    if (at >= 0) {
      this.#text(this.#rest.slice(0, at));
      this.#enterMark(at);
      return true;
    }
    const partial = endThatBegins(this.#rest, this.#open);
    const certain = this.#rest.length - partial;
    this.#text(this.#rest.slice(0, certain));
    this.#rest = this.#rest.slice(certain);
    return false;
  }

  /** @param blanks white space before the mark that is to come back should no call come of it */
  #enterMark(at: number, blanks = ""): void {
    this.#held = blanks + this.#open;
    this.#rest = this.#rest.slice(at + this.#open.length);
    this.#inList = false;
    this.#mode = "before call";
  }

  #beforeCall(): boolean {
    this.#holdBlanks();
    if (this.#rest === "") return false;
    if (this.#format === "llama3_json" && this.#held.trim() === "") {
      if (this.#rest.startsWith(this.#open)) {
        this.#enterMark(0, this.#held);
        return true;
      }
      if (this.#open.startsWith(this.#rest)) return false;
    }
    if (this.#format === "mistral" && !this.#inList && this.#rest[0] === "[") {
      this.#inList = true;
      this.#held += "[";
      this.#rest = this.#rest.slice(1);
      return true;
    }
    if (this.#rest[0] !== "{") {
      this.#giveUp();
      return true;
    }
    this.#reader = this.#newReader();
    this.#mode = "call";
    return true;
  }

  #inCall(): boolean {
    for (let i = 0; i < this.#rest.length; i++) {
      const state = this.#reader.push(this.#rest[i]!);
      if (state === "open") continue;
      if (state === "broken") {
        if (this.#reader.began) {
          // What was told stays; the rest is text.
          this.#tell(false);
          this.#held = "";
          this.#rest = this.#rest.slice(i);
          this.#mode = "text";
        } else {
          this.#held += this.#rest.slice(0, i);
          this.#rest = this.#rest.slice(i);
          this.#giveUp();
        }
        return true;
      }
      this.#tell(true);
      this.#held = "";
      this.#rest = this.#rest.slice(i + 1);
      this.#mode = "after call";
      return true;
    }
    this.#held += this.#rest;
    this.#rest = "";
    return false;
  }

  #tell(done: boolean): void {
    const { name, arguments: text } = this.#reader.progress(done);
    if (name !== undefined) {
      this.#events.push({ type: "call", index: this.#calls++, id: this.#createId(), name });
    }
    if (text !== "") this.#events.push({ type: "arguments", index: this.#calls - 1, text });
    // Once told, it cannot become text again.
    if (this.#reader.began) this.#held = "";
  }

  #afterCall(): boolean {
    this.#holdBlanks();
    if (this.#rest === "") return false;
    const separator =
      this.#format === "llama3_json" ? ";" : this.#format === "mistral" && this.#inList ? "," : "";
    if (separator !== "" && this.#rest[0] === separator) {
      this.#held += separator;
      this.#rest = this.#rest.slice(1);
      this.#mode = "before call";
      return true;
    }
    const close = this.#format === "mistral" && this.#inList ? "]" : this.#close;
    if (close !== "" && this.#rest.startsWith(close)) {
      this.#held = "";
      this.#rest = this.#rest.slice(close.length);
      this.#mode = "closed";
      return true;
    }
    if (close !== "" && close.startsWith(this.#rest)) return false;
    // Not closed: as if it were.
    this.#mode = "closed";
    return true;
  }

  #closed(): boolean {
    this.#holdBlanks();
    if (this.#rest === "") return false;
    if (this.#rest.startsWith(this.#open)) {
      this.#enterMark(0);
      return true;
    }
    if (this.#open.startsWith(this.#rest)) return false;
    this.#giveUp();
    return true;
  }

  /** No call comes of what was held. */
  #giveUp(): void {
    this.#text(this.#held);
    this.#held = "";
    this.#mode = "text";
  }

  #holdBlanks(): void {
    const blanks = /^[ \n\r\t]*/.exec(this.#rest)![0];
    this.#held += blanks;
    this.#rest = this.#rest.slice(blanks.length);
  }
}

/** Length of the longest end of `text` that is a beginning of `mark`. */
function endThatBegins(text: string, mark: string): number {
  for (let length = Math.min(text.length, mark.length - 1); length > 0; length--) {
    if (mark.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
