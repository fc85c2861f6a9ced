import type { z } from "zod";
import { ApiError, invalid } from "../errors.ts";

/** `messages[0].content` for the path of an issue. */
function formatPath(path: readonly PropertyKey[]): string {
  return path
    .map((key, index) => (typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`))
    .join("");
}

/**
 * The body as its schema reads it. `null` in a field of the body itself means that the field is not there, as
 * OpenAI's clients send it; unknown fields are ignored.
 * @throws ApiError 400 naming the first field that is wrong
 */
export function validate<T extends z.ZodType>(schema: T, body: Record<string, unknown>): z.output<T> {
  const present = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
  const result = schema.safeParse(present);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const path = formatPath(issue.path);
  const missing = issue.code === "invalid_type" && issue.path.length === 1 && !(path in present);
  const message = missing ? "it is required" : issue.message;
  if (path === "") throw new ApiError(400, message, { code: "invalid_value" });
  throw invalid(
    path,
    `invalid '${path}': ${message}`,
    missing ? "missing_required_parameter" : "invalid_value",
  );
}

/** Fields that would change the answer and are not supported, with what to do instead. */
export type UnsupportedFields = Readonly<Record<string, string>>;

/** Refuses fields that ask for what is not supported; `null`, `false` and empty lists ask for nothing. */
export function refuseUnsupported(body: Record<string, unknown>, fields: UnsupportedFields): void {
  for (const [name, hint] of Object.entries(fields)) {
    const value = Object.hasOwn(body, name) ? body[name] : undefined;
    if (value === undefined || value === null || value === false || value === "") continue;
    if (Array.isArray(value) && value.length === 0) continue;
    throw invalid(name, `'${name}' is not supported: ${hint}`, "unsupported_parameter");
  }
}
