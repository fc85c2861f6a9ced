/**
 * Whether a parameter's name matches one of the patterns of `frozen_parameters` or `no_decay`: `*` stands
 * for any characters, everything else for itself, and the whole name must match.
 */
export function matchesAny(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const escaped = pattern.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*");
    return new RegExp(`^${escaped}$`).test(name);
  });
}
