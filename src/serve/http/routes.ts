import { handleChat } from "./chat.ts";
import { handleCompletions } from "./completions.ts";
import { handleEmbeddings } from "./embeddings.ts";
import { ApiError, clip } from "./errors.ts";
import type { Exchange, Service } from "./exchange.ts";
import { handleModel, handleModels } from "./models.ts";
import { handleDetokenize, handleTokenize } from "./tokens.ts";

/** A route that takes a JSON object and needs the engine. */
export interface PostRoute {
  readonly kind: "post";
  /** Whether the engine's queue must have room before the body is even read. */
  readonly queued: boolean;
  readonly handle: (
    body: Record<string, unknown>,
    exchange: Exchange,
    service: Service,
  ) => Promise<void> | void;
}

/** A route that takes nothing but its path. */
export interface GetRoute {
  readonly kind: "get";
  readonly handle: (exchange: Exchange, service: Service) => void;
}

/** What needs no engine and is answered by the server itself. */
export interface ServerRoute {
  readonly kind: "health" | "metrics" | "version";
}

/** A route, with the pattern under which it is logged and counted. */
export type Route = (PostRoute | GetRoute | ServerRoute) & { readonly pattern: string };

const routes: Readonly<Record<string, PostRoute | GetRoute | ServerRoute>> = {
  "/health": { kind: "health" },
  "/metrics": { kind: "metrics" },
  "/version": { kind: "version" },
  "/v1/models": { kind: "get", handle: handleModels },
  "/v1/completions": { kind: "post", queued: true, handle: handleCompletions },
  "/v1/chat/completions": { kind: "post", queued: true, handle: handleChat },
  "/v1/embeddings": { kind: "post", queued: true, handle: handleEmbeddings },
  "/tokenize": { kind: "post", queued: false, handle: handleTokenize },
  "/detokenize": { kind: "post", queued: false, handle: handleDetokenize },
};

const modelPrefix = "/v1/models/";

/** Longest path that is looked at. In UTF-16 code units. */
const pathLimit = 2048;

/**
 * The route of a request. Paths name nothing but routes: no file is ever opened for one.
 * @throws ApiError 404 for an unknown path; 405 for the wrong method
 */
export function findRoute(method: string, url: string): Route {
  const path = url.split("?", 1)[0]!;
  const route = lookUp(path);
  if (route === undefined) {
    throw new ApiError(404, `there is nothing at ${JSON.stringify(clip(path, 100))}`, {
      code: "unknown_url",
    });
  }
  const allowed = route.kind === "post" ? ["POST"] : ["GET", "HEAD"];
  if (allowed.includes(method)) return route;
  throw new ApiError(405, `${clip(method, 20)} is not allowed here; use ${allowed[0]}`, {
    code: "method_not_allowed",
    headers: { allow: allowed.join(", ") },
  });
}

function lookUp(path: string): Route | undefined {
  if (path.length > pathLimit) return undefined;
  if (Object.hasOwn(routes, path)) return { ...routes[path]!, pattern: path };
  if (!path.startsWith(modelPrefix) || path.length === modelPrefix.length) return undefined;
  const encoded = path.slice(modelPrefix.length);
  return {
    kind: "get",
    pattern: "/v1/models/{id}",
    handle: (exchange, service) => handleModel(encoded, exchange, service),
  };
}
