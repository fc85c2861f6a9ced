import type { Exchange } from "./exchange.ts";

/**
 * Whom a request is for, so that waiting requests take turns: the holder of its API key, or within one key (and
 * without keys) the `user` that it names.
 */
export function tenantOf(exchange: Exchange, user: string | undefined): string | undefined {
  if (exchange.key === undefined) return user;
  return user === undefined ? `${exchange.key}` : `${exchange.key}/${user}`;
}
