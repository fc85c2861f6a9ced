import { createHash, timingSafeEqual } from "node:crypto";
import { ApiError } from "./errors.ts";

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Knows the API keys, and no more of them than their hashes. */
export class KeyRing {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  /** Whether anybody may come. */
  get open(): boolean {
    return this.#digests.length === 0;
  }

  /**
   * The number of the key in an `Authorization` header; undefined where none is needed. Every key is compared,
   * in constant time.
   * @throws ApiError 401
   */
  identify(authorization: string | undefined): number | undefined {
    if (this.open) return undefined;
    const key = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    const presented = digest(key ?? "");
    let found = -1;
    for (const [index, known] of this.#digests.entries()) {
      if (timingSafeEqual(known, presented)) found = index;
    }
    if (key !== undefined && found >= 0) return found;
    const message =
      key === undefined
        ? "an API key is required: Authorization: Bearer KEY"
        : "the API key is not known here";
    throw new ApiError(401, message, { code: "invalid_api_key", headers: { "www-authenticate": "Bearer" } });
  }
}
