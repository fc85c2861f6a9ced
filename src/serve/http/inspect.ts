import { ApiError } from "./errors.ts";

/** Arrays and objects within each other at the most. */
export const maximumDepth = 128;

/**
 * Refuses values that are well-formed JSON but harm what comes after: deeper than `maximumDepth`, or with half
 * a surrogate pair in any text or key. Walks without recursion.
 * @throws ApiError 400
 */
export function inspectJson(root: unknown): void {
  const values: unknown[] = [root];
  const depths: number[] = [1];
  while (values.length > 0) {
    const value = values.pop();
    const depth = depths.pop()!;
    if (typeof value === "string") checkText(value);
    if (typeof value !== "object" || value === null) continue;
    if (depth > maximumDepth) {
      throw new ApiError(400, `the body is nested deeper than ${maximumDepth} levels`, { code: "too_deep" });
    }
    if (Array.isArray(value)) {
      for (const item of value) {
        // Arrays of token ids are long, and numbers need no look.
        if (typeof item === "number") continue;
        values.push(item);
        depths.push(depth + 1);
      }
    } else {
      for (const key in value) {
        checkText(key);
        values.push((value as Record<string, unknown>)[key]);
        depths.push(depth + 1);
      }
    }
  }
}

function checkText(text: string): void {
  if (text.isWellFormed()) return;
  throw new ApiError(400, "the body holds text with half a surrogate pair, which is no character", {
    code: "invalid_unicode",
  });
}
