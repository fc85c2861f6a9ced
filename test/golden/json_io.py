"""Writes JSON whose short lists stay on one line, so that diffs read well."""

import json


def _render(value, depth):
    """One value as JSON; lists of plain values take one line."""
    indent = "  " * (depth + 1)
    if isinstance(value, dict):
        if not value:
            return "{}"
        rows = [
            f"{indent}{json.dumps(key)}: {_render(item, depth + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(rows) + "\n" + "  " * depth + "}"
    if isinstance(value, list) and any(
        isinstance(item, (list, dict)) for item in value
    ):
        rows = [f"{indent}{_render(item, depth + 1)}" for item in value]
        return "[\n" + ",\n".join(rows) + "\n" + "  " * depth + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def save(path, value):
    """Writes `value` as JSON."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(_render(value, 0) + "\n")
