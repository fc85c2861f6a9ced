/** The words of chat requests as OpenAI writes them, so that a server hands them on as they came. */

/** A piece of a message's content. Only text is served. */
export interface ContentPart {
  readonly type: string;
  readonly text?: string;
}

/** A call that an assistant message made. */
export interface MessageToolCall {
  readonly id?: string | undefined;
  readonly type?: "function" | undefined;
  readonly function: {
    readonly name: string;
    /** JSON text, as the API returns it. */
    readonly arguments: string;
  };
}

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: string | readonly ContentPart[] | null | undefined;
  readonly name?: string | undefined;
  readonly tool_calls?: readonly MessageToolCall[] | null | undefined;
  readonly tool_call_id?: string | undefined;
}

/** A function that the model may call. */
export interface ToolDefinition {
  readonly type: "function";
  readonly function: {
    readonly name: string;
    readonly description?: string | undefined;
    /** A JSON schema of an object; no arguments where it is absent. */
    readonly parameters?: unknown;
    readonly strict?: boolean | null | undefined;
  };
}

/** Whether and what the model must call. */
export type ToolChoice =
  | "none"
  | "auto"
  | "required"
  | { readonly type: "function"; readonly function: { readonly name: string } };

/** How a model writes calls. */
export type ToolFormat =
  /** Hermes and Qwen: `<tool_call>{"name": …, "arguments": …}</tool_call>`, one pair of marks a call. */
  | "hermes"
  /** Llama 3: the answer is `{"name": …, "parameters": …}`, perhaps after `<|python_tag|>`. */
  | "llama3_json"
  /** Mistral: `[TOOL_CALLS][{"name": …, "arguments": …}, …]`. */
  | "mistral";

/** What a parser found in the text that it was given. Calls are numbered from 0 in `index`. */
export type ToolCallEvent =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "call"; readonly index: number; readonly id: string; readonly name: string }
  | { readonly type: "arguments"; readonly index: number; readonly text: string };

/** Splits an answer into text and calls while it is being written. */
export interface ToolCallParser {
  /** How many calls began so far: the finish reason is `tool_calls` where it is not 0. */
  readonly calls: number;
  /** Takes what came; gives what is certain. A text that may become a mark is held back. Never throws. */
  push(text: string): ToolCallEvent[];
  /** Gives what was held back. */
  finish(): ToolCallEvent[];
}
