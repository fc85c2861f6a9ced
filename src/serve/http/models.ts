import { ApiError } from "./errors.ts";
import { type Exchange, resolveModel, type Service } from "./exchange.ts";

function describe(name: string, service: Service): object {
  return {
    id: name,
    object: "model",
    created: service.created,
    owned_by: "slipstream",
    root: service.engine.modelName,
    parent: null,
    max_model_len: service.engine.maximumContext,
  };
}

/** GET /v1/models */
export function handleModels(exchange: Exchange, service: Service): void {
  const data = service.modelNames.map((name) => describe(name, service));
  exchange.sendJson({ object: "list", data });
}

/** GET /v1/models/{id} @param encoded the id as it stands in the path @throws ApiError 400, 404 */
export function handleModel(encoded: string, exchange: Exchange, service: Service): void {
  let name: string;
  try {
    name = decodeURIComponent(encoded);
  } catch (cause) {
    throw new ApiError(400, "the model's name in the path is not well encoded", {
      code: "invalid_url",
      cause,
    });
  }
  exchange.sendJson(describe(resolveModel(name, service), service));
}
