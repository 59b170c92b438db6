"""Directive and template files of IMOD's batchruntomo: text -> directives, and back.  Pure.

A file has one directive a line, ``key = value``; a line that begins with ``#`` is a comment, an empty value
is allowed.  Keys have two to four parts: ``setupset.NAME``, ``setupset.copyarg.NAME``,
``comparam.COMFILE.PROGRAM.OPTION`` and ``runtime.STAGE.AXIS.OPTION``.  Files have no include and no quoting,
and of a repeated key the last one counts.  batchruntomo refuses a line without ``=``; an indented one below a
directive without a value is taken as its value here, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import Record
from tiltd.daemon.text import shown
from tiltd.plugins.api import DirectiveFault

PREFIXES = ("setupset", "comparam", "runtime")
TEMPLATE_KEYS = {
    "setupset.scopeTemplate": "scope template",
    "setupset.systemTemplate": "system template",
    "setupset.userTemplate": "user template",
}
"""Directives that name templates -> the layer that they name."""

_CONTINUED: dict[str, Any] = {
    "severity": "warning",
    "sentence": "its value stands on the next line, indented; tiltd takes it, batchruntomo would refuse "
    "the file: put it behind the '='",
}

MAX_FILE_BYTES = 1_000_000
"""A file beyond it is no file of directives; real ones have a few kilobytes."""


class Origin(Record):
    """Where a value was set: ``layer`` is one of ``merge.LAYERS``, ``source`` a file, rule or field of the
    series in words, ``line`` counts from 1 (0: not from a file)."""

    layer: str
    source: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{shown(self.source)}:{self.line}" if self.line else shown(self.source)
        return f"{self.layer} {where}".strip()


class Directive(Record):
    """One ``key = value``; the value is text without blanks around it, perhaps empty."""

    key: str
    value: str
    origin: Origin


class Parsed(Record):
    """One file.  ``directives`` are in the order of the file, repeated keys included."""

    name: str
    directives: tuple[Directive, ...] = ()
    faults: tuple[DirectiveFault, ...] = ()

    def last(self, key: str) -> str:
        """The value that counts for ``key``; "" when it is not there."""
        return next((each.value for each in reversed(self.directives) if each.key == key), "")


def is_directive(key: str) -> bool:
    """Is this key of options meant for batchruntomo?  (``comparam.tilt.tilt.THICKNESS``: yes.)"""
    return key.split(".", 1)[0] in PREFIXES and "." in key


def parse(text: str, name: str, layer: str = "directive file") -> Parsed:
    """Every directive of a file with its line; lines that are none become faults.  Cost: the text.

    >>> parse("# nothing\\nruntime.Trimvol.any.reorient=1\\n", "a.adoc").last("runtime.Trimvol.any.reorient")
    '1'
    """
    directives: list[Directive] = []
    faults: list[DirectiveFault] = []
    goes_on = False  # the last line was a directive without a value, or the first part of one
    for number, raw in enumerate(_lines(text), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            goes_on = False
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if goes_on and not equals and raw[:1].isspace():
            before = directives[-1]
            directives[-1] = replace(before, value=before.value + line)
            faults.append(DirectiveFault(file=name, line=number, key=before.key, **_CONTINUED))
            continue
        if problem := _fault_of_line(raw, key, equals):
            faults.append(DirectiveFault(file=name, line=number, key=key[:200], sentence=problem))
            goes_on = False
        else:
            origin = Origin(layer=layer, source=name, line=number)
            directives.append(Directive(key=key, value=value, origin=origin))
            goes_on = not value
    return Parsed(name=name, directives=tuple(directives), faults=(*faults, *_repeated(name, directives)))


def from_options(options: Mapping[str, object], origins: Mapping[str, Origin]) -> tuple[Directive, ...]:
    """The options of a dataset that are directives; ``true`` and ``false`` become 1 and 0.

    ``origins`` says where an option was set (feed, policy, operator); without it that is not known.
    """
    unknown = Origin(layer="options")
    return tuple(
        Directive(key=key, value=text_of(value), origin=origins.get(key, unknown))
        for key, value in options.items()
        if is_directive(key)
    )


def text_of(value: object) -> str:
    """A value of an option as batchruntomo reads it.

    >>> text_of(True), text_of(0.35), text_of(" 2,4 ")
    ('1', '0.35', '2,4')
    """
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:.10g}" if isinstance(value, float) else str(value).strip()


def render(directives: Iterable[Directive], heading: str = "") -> str:
    """A file of directives; ``heading`` becomes comments at its top, and a comment before each run of
    directives tells where they were set.

    Raises ValueError for a key or value that would not stay on its line.
    """
    lines = [f"# {line}" for line in heading.splitlines()]
    source = ""
    for each in directives:
        if not printable(each.key) or not printable(each.value):
            raise ValueError(f"the directive {each.key!a} has a character that ends a line in it")
        if (setter := f"{each.origin.layer} {shown(each.origin.source)}".strip()) != source:
            lines.append(f"# {setter}")
            source = setter
        lines.append(f"{each.key} = {each.value}".rstrip() if each.value else f"{each.key} =")
    return "\n".join(lines) + "\n"


def printable(text: str) -> bool:
    """One line of text without control characters or bytes that are no UTF-8."""
    return text.isprintable()


def _lines(text: str) -> list[str]:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _fault_of_line(raw: str, key: str, equals: str) -> str:
    if not equals:
        return "has no '='; write key = value, or begin the line with # to make it a comment"
    if not key:
        return "the line begins with '='; write the key before it"
    if not printable(raw.strip().replace("\t", " ")):
        return "has control characters or bytes that are no UTF-8 in its line; type it again"
    return ""


def _repeated(name: str, directives: list[Directive]) -> list[DirectiveFault]:
    """Warnings for keys that a file sets twice to different values."""
    last = {each.key: each for each in directives}
    return [
        DirectiveFault(
            file=name,
            line=each.origin.line,
            key=each.key,
            severity="warning",
            sentence=f"is set again in line {last[each.key].origin.line}, to "
            f"{shown(last[each.key].value)!r}, which counts; take one of the two away",
        )
        for each in directives
        if each is not last[each.key] and each.value != last[each.key].value
    ]
