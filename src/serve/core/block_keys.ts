import { hash } from "node:crypto";

/**
 * The name of what a full block holds: a digest of everything before it, its own tokens and the salt. Blocks of
 * equal keys hold equal keys and values, whoever computed them. Tenants' contents are told apart by keys alone, so
 * they are SHA-256: a collision, even a wanted one, is out of reach.
 */
export type BlockKey = string;

/** The key before a sequence's first block. Salts of any text, and no salt, give different keys. */
export function rootKey(cacheSalt: string | undefined): BlockKey {
  // JSON writes lone surrogates as escapes; as UTF-8 they would all be one and the same replacement character.
  return cacheSalt === undefined ? "root" : hash("sha256", JSON.stringify(cacheSalt), "base64");
}

/** The key of the block that holds `tokens[start]` to `tokens[end - 1]` after the block of key `parent`. */
export function blockKey(parent: BlockKey, tokens: readonly number[], start: number, end: number): BlockKey {
  let text = parent;
  for (let position = start; position < end; position++) text += `,${tokens[position]}`;
  return hash("sha256", text, "base64");
}
