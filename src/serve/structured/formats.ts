import { parsePattern } from "./pattern_parser.ts";
import { determinize, type TextAutomaton } from "./text_automaton.ts";

const year = "\\d{4}";
/** Years that are leap years, of four digits. */
const leapYear = "(?:\\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
const date =
  `(?:${year}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|` +
  `02-(?:0[1-9]|1\\d|2[0-8]))|${leapYear}-02-29)`;
const clock = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?";
const offset = "(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
const label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const hostname = `${label}(?:\\.${label}){0,10}`;
const byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const ipv4 = `${byte}(?:\\.${byte}){3}`;
const atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";

function ipv6(): string {
  const group = "[0-9a-fA-F]{1,4}";
  const options = [`(?:${group}:){7}${group}`];
  // `::` stands for at least one group: `before` groups in front of it, at most 7 in all.
  for (let before = 0; before <= 7; before++) {
    const head = before === 0 ? "" : `${group}(?::${group}){${before - 1}}`;
    const after = 7 - before;
    options.push(`${head}::${after === 0 ? "" : `(?:${group}(?::${group}){0,${after - 1}})?`}`);
  }
  return `(?:${options.join("|")})`;
}

const durationTime = "T(?:\\d{1,9}H(?:\\d{1,9}M)?(?:\\d{1,9}S)?|\\d{1,9}M(?:\\d{1,9}S)?|\\d{1,9}S)";
const durationDate = "(?:\\d{1,9}Y(?:\\d{1,9}M)?(?:\\d{1,9}D)?|\\d{1,9}M(?:\\d{1,9}D)?|\\d{1,9}D)";

/** The texts of each format as a regular expression (RFC 3339, 4122, 5321, 1123, 2673, 4291, 3986), whole text. */
const patterns: Readonly<Record<string, () => string>> = {
  date: () => date,
  time: () => `${clock}${offset}`,
  "date-time": () => `${date}T${clock}${offset}`,
  duration: () => `P(?:${durationDate}(?:${durationTime})?|${durationTime}|\\d{1,9}W)`,
  uuid: () => "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
  email: () => `${atom}(?:\\.${atom})*@${label}(?:\\.${label}){1,5}`,
  hostname: () => hostname,
  ipv4: () => ipv4,
  ipv6,
  uri: () => "[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+",
};

export const formatNames: readonly string[] = Object.keys(patterns);

const automata = new Map<string, TextAutomaton>();

/** The texts of a format of JSON schema; undefined for one that is not known. */
export function formatAutomaton(name: string): TextAutomaton | undefined {
  if (!Object.hasOwn(patterns, name)) return undefined;
  let automaton = automata.get(name);
  if (automaton === undefined) {
    automaton = determinize(parsePattern(patterns[name]!()));
    automata.set(name, automaton);
  }
  return automaton;
}
