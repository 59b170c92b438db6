"""Faults of a configuration file as sentences: which file, line and key, what is wrong, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tomli

from tiltd.daemon.text import shown
from tiltd.policy.lines import key_lines, line_of

Location = tuple[str | int, ...]


class Fault(NamedTuple):
    """``location`` is the way to the value: names of keys, and numbers (from 0) into ``[[lists]]``."""

    location: Location
    sentence: str

    @classmethod
    def from_pydantic(cls, detail: Mapping[str, Any]) -> Fault:
        location = tuple(part for part in detail["loc"] if part != "[key]")
        return cls(_without_union_branches(location), _sentence(detail))


def sentences(file_name: str, text: str, faults: list[Fault], known: Mapping[str, list[str]]) -> list[str]:
    """One ``FILE:LINE: key: sentence`` per fault, in the order of the file, without repetition.

    ``known`` gives the keys of each section (by dotted name without numbers) for "did you mean".
    """
    lines = key_lines(text)
    told = {
        (line_of(lines, fault.location)[1], key_text(fault.location), _with_hint(fault, known)): None
        for fault in faults
    }
    return [f"{shown(file_name)}:{line}: {key}: {sentence}" for line, key, sentence in sorted(told)]


def syntax_sentence(file_name: str, error: tomli.TOMLDecodeError) -> str:
    match = re.search(r"\(at line (\d+), column (\d+)\)|\(at end of document\)", str(error))
    line = f":{match.group(1)}" if match and match.group(1) else ""
    reason = str(error).split(" (at ")[0]
    return f"{shown(file_name)}{line}: is no TOML: {shown(reason)}"


def key_text(location: Location) -> str:
    """``("feed", 1, "path")`` -> ``feed[2].path``: people count from one."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{shown(part)}" if text else shown(part)
    return text


def _with_hint(fault: Fault, known: Mapping[str, list[str]]) -> str:
    if not fault.sentence.startswith("unknown key"):
        return fault.sentence
    section = ".".join(part for part in fault.location[:-1] if isinstance(part, str))
    choices = known.get(section, [])
    near = difflib.get_close_matches(str(fault.location[-1]), choices, n=1, cutoff=0.6)
    if near:
        return f'unknown key; did you mean "{near[0]}"?'
    return f"unknown key; known here: {', '.join(sorted(choices))}" if choices else "unknown key; remove it"


def _without_union_branches(location: Location) -> Location:
    """Pydantic names the branch of a union (``str``, ``int``) as a last part; a reader has no use for it."""
    branches = {"str", "int", "float", "bool", "none"}
    return location[:-1] if len(location) > 2 and location[-1] in branches else location


_TYPES = {
    "string_type": 'must be a text in quotes, for example "name"',
    "int_type": "must be a whole number without quotes",
    "float_type": "must be a number without quotes",
    "bool_type": "must be true or false, without quotes",
    "dict_type": 'must be a table, for example { key = "value" }',
    "model_type": "must be a table in [square brackets]",
    "list_type": "must be a list of tables in [[double square brackets]]",
    "missing": "is required and missing; add it",
    "extra_forbidden": "unknown key",
}


def _sentence(detail: Mapping[str, Any]) -> str:
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']:g}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']:g}"
    message = str(detail["msg"])
    return message[0].lower() + message[1:]
