"""Directives against the table of those that exist: unknown, wrong type, wrong place.  Pure.

Stricter than batchruntomo, which looks at the keys, at Bool values and at the place; a number that is none
would fail minutes later, in the program that it is meant for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from tiltd.daemon.text import shown
from tiltd.plugins.api import DirectiveFault

from .csv_table import Entry, Table
from .demand import numbers
from .directives import PREFIXES, TEMPLATE_KEYS, Directive
from .merge import TEMPLATES

MAX_VALUE = 2000
"""Characters; longer ones are no values of directives."""

HINTS_MAX = 20
"""So many unknown keys of a run or file get a suggestion: a search of the table costs milliseconds, and a
large file that is none of directives has thousands of them."""

_AXES = ("any", "a", "b")
_LIST = re.compile(r"[\d\s,/-]+")


def validate(directives: Iterable[Directive], table: Table) -> tuple[DirectiveFault, ...]:
    """Every fault and warning, in the order of the directives.  Cost: the directives; a search of the table
    for each of the first unknown ones."""
    faults = []
    hints = _Hints(table)
    for directive in directives:
        if found := _fault(directive, table, hints):
            severity, sentence = found
            origin = directive.origin
            faults.append(
                DirectiveFault(
                    sentence=sentence,
                    key=directive.key,
                    file=origin.source if origin.line else str(origin),
                    line=origin.line,
                    severity="warning" if severity == "warning" else "error",
                )
            )
    return tuple(faults)


class _Hints:
    """A key -> what may have been meant; "" once there were too many."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._left = HINTS_MAX

    def __call__(self, key: str) -> str:
        self._left -= 1
        near = self._table.near(key) if self._left >= 0 else []
        return f"; did you mean {near[0]}?" if near else ""


def _fault(directive: Directive, table: Table, hints: _Hints) -> tuple[str, str] | None:
    if not directive.key.isprintable() or not directive.value.isprintable():
        return "error", "has control characters or bytes that are no UTF-8 in it; type it again"
    if len(directive.value) > MAX_VALUE:
        return "error", f"has a value of {len(directive.value)} characters; it takes at most {MAX_VALUE}"
    if sentence := _shape(directive.key, hints):
        return "error", sentence
    entry = table.find(directive.key)
    if entry is None:
        return _unknown(directive.key, table, hints)
    if sentence := _type(directive.value, entry):
        return "error", sentence
    if sentence := _place(directive, entry):
        return ("error" if table.complete else "warning"), sentence
    if sentence := _choice(directive.value, entry):
        return "warning", sentence
    return None


def _shape(key: str, hints: _Hints) -> str:
    """The parts of a key, as batchruntomo takes them apart."""
    parts = key.split(".")
    if parts[0] not in PREFIXES:
        return f"begins with {shown(parts[0])!r}; directives begin with {', '.join(PREFIXES)}{hints(key)}"
    least = 2 if parts[0] == "setupset" else 4
    if len(parts) < least or not all(parts):
        form = {
            "setupset": "setupset.NAME",
            "comparam": "comparam.COMFILE.PROGRAM.OPTION",
            "runtime": "runtime.STAGE.any.OPTION",
        }[parts[0]]
        return f"is too short: its form is {form}{hints(key)}"
    if parts[0] == "runtime" and parts[2] not in _AXES:
        fixed = ".".join((*parts[:2], "any", *parts[3:]))
        return f"has {shown(parts[2])!r} as its third part, which must be any, a or b: write {shown(fixed)}"
    return ""


def _unknown(key: str, table: Table, hints: _Hints) -> tuple[str, str]:
    if any(key.lower() == other.lower() for other in table.entries):
        return "error", f"differs from a known one in upper and lower case{hints(key)}"
    if table.complete:
        return "error", f"is not in {shown(table.source)}{hints(key)}"
    return "warning", (
        f"is not known to tiltd, and IMOD's own table is not installed here{hints(key)}; "
        "set [imod] dir or directives_csv, and it can be checked"
    )


def _type(value: str, entry: Entry) -> str:
    if not value:
        return "is empty; a Bool has to be 0 or 1" if entry.type == "Bool" else ""
    parts = numbers(value)
    match entry.type:
        case "Bool" if value not in ("0", "1"):
            return f"is {shown(value)!r}; a Bool has to be 0 or 1"
        case "Int" if not _whole(value):
            return f"is {shown(value)!r}; it has to be one whole number"
        case "Float" if not _number(value):
            return f"is {shown(value)!r}; it has to be one number"
        case "2 Int" if len(parts) != 2 or not all(map(_whole, parts)):
            return f"is {shown(value)!r}; it has to be two whole numbers, such as 100,100"
        case "2 Float" if len(parts) != 2 or not all(map(_number, parts)):
            return f"is {shown(value)!r}; it has to be two numbers, such as 0.35 0.05"
        case "List" if not _LIST.fullmatch(value):
            return f"is {shown(value)!r}; it has to be a list of numbers, such as 1,4-6"
    return ""


def _whole(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,9}", text) is not None


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _place(directive: Directive, entry: Entry) -> str:
    """Only files have a place: what an option sets is written where it belongs."""
    layer = directive.origin.layer
    if layer in TEMPLATES and not entry.template and directive.key not in TEMPLATE_KEYS:
        return "may stand in a directive file only, not in a template; move it there"
    if layer in TEMPLATES and directive.key in TEMPLATE_KEYS:
        return "names a template inside a template, which batchruntomo does not follow; take it away"
    if layer == "directive file" and not entry.batch:
        return "may stand in a template only, not in a directive file; move it there"
    return ""


def _choice(value: str, entry: Entry) -> str:
    known = [choice for choice, _ in entry.choices]
    if not value or not known or value in known or entry.type != "Int":
        return ""
    told = ", ".join(f"{choice} ({meaning})" for choice, meaning in entry.choices)
    return f"is {shown(value)}, which is none of the choices that are known: {told}"
