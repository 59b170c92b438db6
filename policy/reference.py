"""The reference of keys in ``docs/policy.md``, drawn from the schema and the shipped policy.

A test compares them; run as a program it writes the page anew (``tests/policy/test_policy_docs.py``).
"""

from __future__ import annotations

import re

from pydantic.fields import FieldInfo

from .schema import LISTED, SECTIONS, keys_of

_KINDS = {"span": "span of time", "bytes": "amount of bytes"}


def reference(default_text: str) -> str:
    """Markdown: one table a section, one row a key.  ``default_text`` is that of ``default.toml``."""
    defaults, parts = _defaults(default_text), []
    for name, table in SECTIONS.items():
        rows = [
            f"| `{key}` | {field.description} | {_unit(field.json_schema_extra)} "
            f"| `{defaults[f'{name}.{key}']}` | `{key} = {_example(field)}` |"
            for key, field in keys_of(table).items()
            if f"{name}.{key}" not in SECTIONS
        ]
        head = ["| key | meaning | unit | default | example |", "|---|---|---|---|---|"]
        parts.append("\n".join([f"### `[{name}]`", "", _purpose(table), "", *head, *rows, ""]))
        if name == "limits":
            parts.append(_SHARES)
    for name, table in LISTED.items():
        rows = [
            f"| `{key}` | {field.description}{_must(field)} | {_unit(field.json_schema_extra)} "
            f"| `{key} = {_example(field)}` |"
            for key, field in keys_of(table).items()
            if f"{name}.{key}" not in LISTED
        ]
        head = ["| key | meaning | unit | example |", "|---|---|---|---|"]
        title = f"`[[{name}]]`" if name in ("rule", "notice", "test", "test.node") else f"`[{name}]`"
        parts.append("\n".join([f"### {title}", "", _purpose(table), "", *head, *rows, ""]))
    return "\n".join(parts)


_SHARES = """### `[shares]`

Weights of projects for fair sharing, from 0 (served when nobody else waits) to 1000: `"lab-a" = 2`. Names are
patterns, the first that matches counts; none is shipped.
"""


def _purpose(table: type) -> str:
    return " ".join((table.__doc__ or "").split()).replace("``", "`")


def _must(field: FieldInfo) -> str:
    return " (required)" if field.is_required() else ""


def _example(field: FieldInfo) -> str:
    return str((field.examples or [""])[0])


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
