import type { Tokenizer } from "../../data/index.ts";
import type { SequenceInfo } from "../core/types.ts";
import type { TokenConstraint } from "../structured/types.ts";
import { AnswerText } from "./answer_text.ts";
import { PieceQueue } from "./piece_queue.ts";
import type { CheckedRequest } from "./request_checks.ts";
import { type RowLogprobs, SamplingState } from "./sampling_state.ts";
import type { TokenTexts } from "./token_texts.ts";
import type {
  FinishReason,
  GenerateRequest,
  Generation,
  Piece,
  RequestReport,
  TokenLogprob,
} from "./types.ts";

/** How an answer ended. */
export interface Ending {
  readonly reason: FinishReason;
  readonly stopReason?: string | number;
  readonly error?: string;
}

/** What a step gave one answer: made before the next step is launched, delivered while that runs. */
export interface Delivery {
  readonly answer: Answer;
  readonly token: number;
  readonly logprobs: RowLogprobs | undefined;
  /** The text that the token added, where it had to be known at once. */
  readonly text: string | undefined;
  readonly ending: Ending | undefined;
}

/** What turning tokens into text needs. */
export interface TextSources {
  readonly tokenizer: Tokenizer;
  readonly texts: TokenTexts;
}

/** One answer of a request while it runs. */
export class Answer {
  readonly request: RunningRequest;
  readonly index: number;
  readonly sequence: number;
  readonly sampling: SamplingState;
  readonly constraint: TokenConstraint | undefined;
  readonly text: AnswerText;
  /** Seconds of `performance.now` at its last token. */
  lastToken: number | undefined;
  /** Once it has ended; its last piece may still be on its way. */
  ending: Ending | undefined;
  /** Whether its last piece has been handed over. */
  delivered = false;
  /** What its constraint threw while the operands of a step were written: other requests must not suffer. */
  fault: unknown;

  constructor(request: RunningRequest, info: SequenceInfo, sources: TextSources, seed: number) {
    const { checked, prompt, ending } = request;
    this.request = request;
    this.index = info.answer;
    this.sequence = info.sequence;
    this.constraint = this.#guard(request.source.grammar?.start());
    this.sampling = new SamplingState(checked, prompt, { seed, answer: info.answer, ending: [...ending] });
    this.text = new AnswerText(sources.tokenizer, { context: prompt, ...checked });
  }

  /**
   * Takes the token that was sampled and says what became of the answer. Only stop texts need the text at once;
   * otherwise it is left to `deliver`.
   */
  accept(token: number, logprobs: RowLogprobs | undefined): Delivery {
    const { checked, ending: endTokens } = this.request;
    this.sampling.accept(token);
    if (endTokens.has(token)) {
      const own = checked.stopTokens.includes(token);
      this.ending = { reason: "stop", ...(own ? { stopReason: token } : {}) };
      return { answer: this, token, logprobs, text: undefined, ending: this.ending };
    }
    this.constraint?.accept(token);
    let text: string | undefined;
    if (checked.stop.length > 0) {
      const added = this.text.push(token);
      text = added.text;
      if (added.stop !== undefined) this.ending = { reason: "stop", stopReason: added.stop };
    }
    if (this.ending === undefined && this.sampling.position >= checked.maxTokens) {
      this.ending = { reason: "length" };
    }
    return { answer: this, token, logprobs, text, ending: this.ending };
  }

  /** The constraint, but where it fails it allows nothing. */
  #guard(constraint: TokenConstraint | undefined): TokenConstraint | undefined {
    if (constraint === undefined) return undefined;
    return {
      fillMask: (mask) => {
        try {
          constraint.fillMask(mask);
        } catch (error) {
          this.fault = error;
          mask.fill(0);
        }
      },
      accept: (token) => constraint.accept(token),
    };
  }

  /** The piece of a delivery. */
  piece(delivery: Delivery, sources: TextSources): Piece {
    const { token, logprobs, ending } = delivery;
    const { checked, ending: endTokens } = this.request;
    let { text } = delivery;
    // The token that ends an answer is not part of its text, unless that was asked for.
    if (text === undefined) {
      text = endTokens.has(token) && !checked.includeStop ? "" : this.text.push(token).text;
    }
    if (ending !== undefined && typeof ending.stopReason !== "string") text += this.text.flush();
    return {
      index: this.index,
      text,
      tokens: [token],
      ...(logprobs === undefined ? {} : { logprobs: [describeLogprobs(token, logprobs, sources.texts)] }),
      ...(ending === undefined ? {} : endOf(ending)),
    };
  }
}

/** A request from its arrival to its last piece. */
export class RunningRequest implements Generation {
  readonly id: string;
  /** The scheduler's name for it: ids are the client's and may repeat. */
  readonly key: string;
  readonly source: GenerateRequest;
  readonly prompt: readonly number[];
  readonly checked: CheckedRequest;
  /** Tokens that end an answer. */
  readonly ending: ReadonlySet<number>;
  readonly arrived = performance.now() / 1000;
  answers: readonly Answer[] = [];
  cachedTokens = 0;
  scheduled: number | undefined;
  firstToken: number | undefined;
  /** Whether it was ended from outside: nothing more is delivered. */
  ended = false;
  readonly #queue: PieceQueue;
  #forget: (() => void) | undefined;

  constructor(
    names: { readonly id: string; readonly key: string },
    source: GenerateRequest,
    prompt: readonly number[],
    checked: CheckedRequest,
    endTokens: readonly number[],
    /** Called where the client goes away. */
    abandon: (request: RunningRequest) => void,
  ) {
    this.id = names.id;
    this.key = names.key;
    this.source = source;
    this.prompt = prompt;
    this.checked = checked;
    // A grammar says where a text may end, and the end is all that it allows where the text must.
    const ignores = checked.ignoreEos && source.grammar === undefined;
    this.ending = new Set([...(ignores ? [] : endTokens), ...checked.stopTokens]);
    this.#queue = new PieceQueue(() => abandon(this));
    const { signal } = source;
    if (signal !== undefined) {
      const listener = (): void => abandon(this);
      signal.addEventListener("abort", listener, { once: true });
      this.#forget = () => signal.removeEventListener("abort", listener);
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<Piece, undefined, undefined> {
    return this.#queue;
  }

  /** Whether the last piece of every answer has been handed over. */
  get complete(): boolean {
    return this.answers.every((answer) => answer.delivered);
  }

  /** Hands a piece to the consumer. */
  push(piece: Piece): void {
    this.#queue.push(piece);
  }

  /** Ends what has not ended yet, with a last piece an answer. */
  end(ending: Ending): void {
    if (this.ended) return;
    for (const answer of this.answers) this.endAnswer(answer, ending);
    this.close();
  }

  /** Ends one answer, if its last piece has not been handed over. */
  endAnswer(answer: Answer, ending: Ending): void {
    if (answer.delivered) return;
    answer.ending = ending;
    answer.delivered = true;
    this.push({ index: answer.index, text: "", tokens: [], ...endOf(ending) });
  }

  /** No more pieces will come. */
  close(): void {
    this.ended = true;
    this.#forget?.();
    this.#forget = undefined;
    this.#queue.close();
  }

  /** What metrics are told at the end. */
  report(now: number): RequestReport {
    const since = (time: number | undefined): number | undefined =>
      time === undefined ? undefined : time - this.arrived;
    return {
      id: this.id,
      promptTokens: this.prompt.length,
      cachedTokens: this.cachedTokens,
      answerTokens: this.answers.reduce((total, { sampling }) => total + sampling.position, 0),
      answers: this.answers.length,
      maximumTokens: this.checked.maxTokens,
      finishReasons: this.answers.map(({ ending }) => ending?.reason ?? "abort"),
      queueSeconds: since(this.scheduled),
      firstTokenSeconds: since(this.firstToken),
      seconds: now - this.arrived,
    };
  }
}

function endOf({ reason, stopReason, error }: Ending): Pick<Piece, "finishReason" | "stopReason" | "error"> {
  return {
    finishReason: reason,
    ...(stopReason === undefined ? {} : { stopReason }),
    ...(error === undefined ? {} : { error }),
  };
}

function describeLogprobs(token: number, logprobs: RowLogprobs, texts: TokenTexts): TokenLogprob {
  const describe = (id: number, logprob: number): Omit<TokenLogprob, "top"> => {
    const { text, bytes } = texts.of(id);
    return { token: id, text, bytes, logprob };
  };
  return {
    ...describe(token, logprobs.chosen),
    top: logprobs.top.map(([id, logprob]) => describe(id, logprob)),
  };
}
