"""The reference of keys in ``docs/policy.md``, drawn from the schema and the shipped policy.

A test compares them; run as a program it writes the page anew (``tests/policy/test_policy_docs.py``).
"""

from __future__ import annotations

import re

from .schema import keys_of, tables

_KINDS = {"span": "span of time", "bytes": "amount of bytes"}


def reference(default_text: str) -> str:
    """Markdown: one table a section, one row a key.  ``default_text`` is that of ``default.toml``."""
    defaults, parts = _defaults(default_text), []
    for name, table in tables().items():
        if not name:
            continue
        rows = [
            f"| `{key}` | {field.description} | {_unit(field.json_schema_extra)} "
            f"| `{defaults[f'{name}.{key}']}` | `{key} = {(field.examples or [''])[0]}` |"
            for key, field in keys_of(table).items()
            if f"{name}.{key}" not in tables()
        ]
        head = [
            f"### `[{name}]`",
            "",
            table.__doc__ or "",
            "",
            "| key | meaning | unit | default | example |",
        ]
        parts.append("\n".join([*head, "|---|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _unit(extra: object) -> str:
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    return _KINDS.get(unit, unit) or "-"


def _defaults(text: str) -> dict[str, str]:
    """Dotted key -> its value as it is written in the shipped file (one line a key there)."""
    found, section = {}, ""
    for line in text.splitlines():
        if header := re.fullmatch(r"\[([a-z_.]+)\]", line):
            section = header.group(1)
        elif pair := re.fullmatch(r"([a-z_]+) = (.*)", line):
            found[f"{section}.{pair.group(1)}"] = pair.group(2)
    return found
