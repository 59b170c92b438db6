"""Faults of policy files as sentences: what is wrong, what is allowed, did you mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomli

from tiltd.daemon.core.model import Record
from tiltd.daemon.core.units import shown_value

from .lines import Path


class PolicyError(Record):
    """One fault.  As text: ``file:line: key: message``."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{printable(self.file)}:{self.line}: {where}{self.message}"


def printable(name: str) -> str:
    """Control characters and lone surrogates escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def key_text(path: Path) -> str:
    """``("resources", "cores", "steps", 1, "above")`` -> ``resources.cores.steps[2].above``: people count
    from one."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += ("." if text else "") + printable(part)[:80]
    return text


def syntax_error(file: str, text: str, error: Exception) -> PolicyError:
    """What tomli says, with the line, and a hint for the slips that operators make most."""
    found = re.search(r"\(at line (\d+), column \d+\)", str(error))
    last = text.count("\n") + (not text.endswith("\n"))
    line = int(found.group(1)) if found else max(1, last)
    if "int_max_str_digits" in str(error):
        error = ValueError("a number has thousands of digits")  # Python's advice helps nobody here
    reason = str(error).split(" (at ")[0] if isinstance(error, tomli.TOMLDecodeError) else str(error)
    return PolicyError(
        file=file,
        line=line,
        key="",
        message=f"is no TOML: {printable(reason)[:200]}{_hint(text, line, reason)}",
    )


def _hint(text: str, line: int, reason: str) -> str:
    lines = text.split("\n")
    if reason in ("Illegal character '\\n'", 'Expected "\'"', "Unterminated string"):
        return "; a text ends with its quotes on the same line"
    if reason == "Cannot overwrite a value":
        return "; the key stands there twice"
    content = lines[line - 1] if line <= len(lines) else ""
    if re.match(r"\s*[\w.-]+\s*=\s*[0-9.]+ ?[A-Za-z]", content):
        return '; a value with a unit stands in quotes, such as "90min"'
    if re.match(r"\s*[\w.-]+\s*:", content):
        return '; a key and its value are joined by "="'
    if re.match(r"\s*[\w.-]+\s*=\s*[A-Za-z]", content):
        return '; a text stands in quotes, such as "hold"'
    return ""


def sentence(detail: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> str:
    """The sentence for one error of pydantic's.  ``known`` has the keys of each table, by dotted name."""
    kind, limits = str(detail["type"]), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(detail["loc"], known)
    if kind == "value_error":
        return str(limits["error"])
    if kind == "list_type" and detail["loc"] in (("rule",), ("test",)):
        name = detail["loc"][0]
        return f"is no list of {name}s: each {name} begins with [[{name}]], in two pairs of brackets"
    if kind == "literal_error":
        return _not_one_of(detail["input"], str(limits["expected"]))
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(shown=shown_value(_plain(detail["input"])), **limits)
    return f"{detail['msg']}: see the policy reference for what is allowed"


_SENTENCES = {
    "missing": "is missing in this table: give it a value",
    "int_type": "{shown} is no whole number: allowed is a whole number without quotes",
    "int_from_float": "{shown} is no whole number: allowed is a whole number without quotes",
    "float_type": "{shown} is no number: allowed is a number without quotes",
    "finite_number": "{shown} is no finite number: allowed is a number such as 1.5",
    "string_type": "{shown} is no text: allowed is a text in quotes",
    "list_type": "{shown} is no list: allowed is a list in square brackets",
    "model_type": "{shown} is no table: allowed is a table of keys",
    "greater_than_equal": "{shown} is too small: allowed is {ge:g} or more",
    "less_than_equal": "{shown} is too large: allowed is {le:g} or less",
    "string_pattern_mismatch": "{shown} has other characters than letters, digits and _ . : @ -",
    "string_too_short": "{shown} is too short: allowed is a text of {min_length} character or more",
    "bool_type": "{shown} is neither true nor false: allowed are true and false without quotes",
    "dict_type": "{shown} is no table: allowed is a table of keys",
    "too_long": "has too many: allowed are {max_length}",
    "too_short": "has too few: allowed is {min_length} or more",
    "string_too_long": "{shown} is too long: allowed are {max_length} characters",
}


def _plain(value: Any) -> Any:
    return type(value).__name__ if isinstance(value, (dict, list)) else value


def _unknown_key(path: Sequence[str | int], known: Mapping[str, Sequence[str]]) -> str:
    name = str(path[-1])
    table = ".".join(part for part in path[:-1] if isinstance(part, str))
    here = known.get(table, ())
    if near := difflib.get_close_matches(name[:80], here, n=1):
        return f'unknown key; did you mean "{near[0]}"?'
    if home := _home(name, table, known):
        return f"unknown key here; it belongs to {home}"
    listed = f"allowed here: {', '.join(here)}" if here else "remove it"
    return f"unknown key; {listed}"


def _home(name: str, table: str, known: Mapping[str, Sequence[str]]) -> str:
    """The one table that has a key of this name: below this one (``[rule.set]``), or a section; else ""."""
    homes = [home for home, keys in known.items() if home and name in keys]
    below = [home for home in homes if table and home.startswith(f"{table}.")]
    sections = [home for home in homes if not home.startswith(("rule", "test")) and home.count(".") < 2]
    found = below or ([] if table.startswith(("rule", "test")) else sections)
    return f"[{found[0]}]" if len(found) == 1 else ""


def _not_one_of(value: Any, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(str(value)[:80], choices, n=1) if isinstance(value, str) else []
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"{shown_value(_plain(value))} is none of those allowed: {', '.join(choices)}{hint}"
