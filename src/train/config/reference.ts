import { type ConfigKey, describeConfig } from "./describe.ts";

/** The reference of every config key as Markdown: one table for each section. */
export function configReferenceMarkdown(): string {
  const keys = describeConfig();
  const topLevel = keys.filter((key) => !key.path.includes("."));
  const plain = topLevel.filter((key) => key.type !== "section");
  const lines = [
    "# Training config",
    "",
    "A config is YAML or JSON. DeepSpeed's keys keep their names and meaning. Unknown keys are refused at every level. `--set path.to.key=value` overrides a key, and `--set path.to.key=null` removes it.",
    "",
    "## Top level",
    "",
    ...table(plain, ""),
  ];
  for (const section of topLevel.filter((key) => key.type === "section")) {
    const prefix = `${section.path}.`;
    const inside = keys.filter((key) => key.path.startsWith(prefix));
    lines.push("", `## ${section.path}`, "", `${section.description}${section.required ? " Required." : ""}`);
    if (inside.length > 0) lines.push("", ...table(inside, prefix));
  }
  return `${lines.join("\n")}\n`;
}

function table(keys: readonly ConfigKey[], prefix: string): string[] {
  const rows = keys.map((key) => {
    const of = key.appliesTo === undefined || isTypeKey(key) ? "" : ` _(${key.appliesTo.join(", ")})_`;
    const cells = [`\`${key.path.slice(prefix.length)}\`${of}`, key.type, defaultText(key), key.description];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return ["| key | type | default | meaning |", "|---|---|---|---|", ...rows];
}

function isTypeKey(key: ConfigKey): boolean {
  return key.path.endsWith(".type");
}

function defaultText(key: ConfigKey): string {
  if (key.default !== undefined) return `\`${JSON.stringify(key.default)}\``;
  return key.required ? "required" : "";
}
