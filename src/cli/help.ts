/** What the help of a command ends with. */
export interface HelpEnding {
  /** Command lines that work, with what each does. */
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  /** What to read or type next. */
  readonly next: string;
}

/** The end of a help text: examples, then what to read next. */
export function helpEnding({ examples, next }: HelpEnding): string {
  const lines = examples.flatMap(([command, meaning]) => [`  $ ${command}`, `      ${meaning}`]);
  return ["\nExamples:", ...lines, `\nNext: ${next}`].join("\n");
}
