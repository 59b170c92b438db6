"""Faults of a configuration file as sentences: which file, line and key, what is wrong, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tomli

from tiltd.daemon.text import shown

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
    lines = KeyLines(text)
    told = {
        (lines.of(fault.location), key_text(fault.location), _with_hint(fault, known)): None
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


class KeyLines:
    """Location of a key -> its line, from the text alone; no TOML library keeps positions."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Location, int] = {(): 1}
        counts: dict[Location, int] = {}
        table: Location = ()
        for number, line in enumerate(text.splitlines(), start=1):
            if header := re.match(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]", line):
                table = _location(header.group(2), counts)
                if header.group(1) == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._lines.setdefault(table, number)
            elif key := re.match(r"\s*((?:[A-Za-z0-9_.-]|\"[^\"]*\")+)\s*=", line):
                self._lines.setdefault(table + _location(key.group(1), {}), number)

    def of(self, location: Location) -> int:
        """The line of the key, or of the nearest thing around it."""
        while location not in self._lines:
            location = location[:-1]
        return self._lines[location]


def _location(dotted: str, counts: Mapping[Location, int]) -> Location:
    location: Location = ()
    for part in re.findall(r'"[^"]*"|[^.\s]+', dotted):
        if location in counts:
            location = (*location, counts[location])
        location = (*location, part.strip('"'))
    return location
