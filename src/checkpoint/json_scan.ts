/** What is wrong with a JSON text: a key given twice in one object at some depth, or too many levels. */
export type JsonProblem =
  | { readonly kind: "duplicate key"; readonly key: string; readonly depth: number }
  | { readonly kind: "too deep" };

/**
 * Finds what JSON.parse would let pass: a key given twice (it keeps the last), and nesting so deep that
 * parsing takes far more memory than the text. Undefined where there is neither; whatever else is wrong
 * is left for JSON.parse to name.
 * @throws SyntaxError where a key that is written with escapes is no JSON string.
 */
export function scanJson(text: string, maximumDepth: number): JsonProblem | undefined {
  // The keys of each object that is open, undefined for lists.
  const open: (Set<string> | undefined)[] = [];
  let expectsKey = false;
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case '"': {
        const end = endOfString(text, i);
        const keys = open.at(-1);
        if (expectsKey && keys !== undefined) {
          const raw = text.slice(i, end + 1);
          const key = raw.includes("\\") ? String(JSON.parse(raw)) : raw.slice(1, -1);
          if (keys.has(key)) return { kind: "duplicate key", key, depth: open.length };
          keys.add(key);
          expectsKey = false;
        }
        i = end;
        break;
      }
      case "{":
      case "[":
        if (open.length === maximumDepth) return { kind: "too deep" };
        expectsKey = text[i] === "{";
        open.push(expectsKey ? new Set() : undefined);
        break;
      case "}":
      case "]":
        open.pop();
        expectsKey = false;
        break;
      case ",":
        expectsKey = open.at(-1) !== undefined;
        break;
    }
  }
  return undefined;
}

/** The index of the quote that ends the string that begins at `start`; the text's end where none does. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}
