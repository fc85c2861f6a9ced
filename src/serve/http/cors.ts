import type { Exchange } from "./exchange.ts";

const preflightHeaders = {
  "access-control-allow-methods": "GET, POST, OPTIONS",
  "access-control-allow-headers": "authorization, content-type, x-request-id",
  "access-control-max-age": "600",
} as const;

/**
 * Lets the pages of allowed origins read answers. Off where `origins` is empty; "*" allows every origin.
 * @returns whether the request was a preflight, which is answered with this
 */
export function applyCors(exchange: Exchange, origins: readonly string[]): boolean {
  const { request, response } = exchange;
  const origin = request.headers.origin;
  if (origins.length === 0 || origin === undefined) return false;
  const all = origins.includes("*");
  if (!all) response.setHeader("vary", "origin");
  if (!all && !origins.includes(origin)) return false;
  response.setHeader("access-control-allow-origin", all ? "*" : origin);
  response.setHeader("access-control-expose-headers", "x-request-id, retry-after");
  if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined)
    return false;
  response.writeHead(204, preflightHeaders).end();
  return true;
}
