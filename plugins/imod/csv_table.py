"""The table of directives that an IMOD installation brings: ``$IMOD_DIR/com/directives.csv``.  Pure.

Columns by their heading: Directive, Definition, Type, Batch, Tmplt, eTomo, Notes, Label, Choices (the last
two from 2014 on).  Headings of sections have one filled cell; comments begin with ``#``.  ``Y`` below Batch
or Tmplt says in which kind of file a directive may stand; Choices are ``0: manual; 1: auto-seeding``.  IMOD's
versions differ in what they know, so the table is read where it is installed and never copied.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

from tiltd.daemon.core.model import Record

from .directives import PREFIXES

KEY_MAX = 200
"""Characters of a key that are compared; real ones have up to 60."""

ALIKE = 0.6
"""Similarity of two words from which one is taken for the other misspelt."""

TYPES = ("Bool", "Int", "Float", "2 Int", "2 Float", "List", "File", "String")


class Entry(Record):
    """What is known of one directive.  ``choices`` are (value, meaning); ``ours`` is what tiltd adds."""

    key: str
    definition: str = ""
    type: str = "String"
    batch: bool = True
    template: bool = True
    section: str = ""
    notes: str = ""
    label: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    ours: str = ""


class Table(Record):
    """``complete``: what is not in it is no directive of that IMOD; else it is only what tiltd knows."""

    entries: dict[str, Entry] = {}
    complete: bool = False
    source: str = ""

    def find(self, key: str) -> Entry | None:
        """The entry of a key, whatever its axis: ``runtime.X.b.Y`` is ``runtime.X.any.Y``,
        ``comparam.tiltb.tilt.Y`` is ``comparam.tilt.tilt.Y``."""
        return self.entries.get(key) or next(
            (self.entries[other] for other in _of_any_axis(key) if other in self.entries), None
        )

    def near(self, key: str, count: int = 1) -> list[str]:
        """Known keys that look like this one, the nearest first; the end of a key will do."""
        return list(_near(key[:KEY_MAX], tuple(self.entries), count))


def read_table(text: str, source: str, ours: Table | None = None) -> Table:
    """The table in ``text``; where ``ours`` knows a directive too, its words are added.

    Raises ValueError with a sentence if this is no such table.  Cost: the text, once at the start.
    """
    rows = csv.reader(text.splitlines())
    heading = next((row for row in rows if row and row[0].strip() == "Directive"), None)
    if heading is None or "Type" not in heading:
        raise ValueError(f"{source} is no table of directives: no line begins with Directive,Definition,Type")
    columns = [name.strip() for name in heading]
    entries = {}
    section = ""
    for row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        key = cells.get("Directive", "")
        if key.split(".", 1)[0] in PREFIXES and "." in key:
            entries[key] = _entry(key, cells, section, ours)
        elif key and not any(value for name, value in cells.items() if name != "Directive"):
            section = key
    if not entries:
        raise ValueError(f"{source} is no table of directives: there is none in it")
    return Table(entries=entries, complete=True, source=source)


def _entry(key: str, cells: dict[str, str], section: str, ours: Table | None) -> Entry:
    known = ours.entries.get(key) if ours else None
    kind = cells.get("Type", "")
    return Entry(
        key=key,
        definition=cells.get("Definition", ""),
        type=kind if kind in TYPES else "String",
        batch=cells.get("Batch", "") == "Y",
        template=cells.get("Tmplt", "") == "Y",
        section=section,
        notes=cells.get("Notes", ""),
        label=cells.get("Label", ""),
        choices=choices_of(cells.get("Choices", "")) or (known.choices if known else ()),
        ours=known.ours if known else "",
    )


def choices_of(text: str) -> tuple[tuple[str, str], ...]:
    """``0: none; -1: default`` -> (("0", "none"), ("-1", "default"))."""
    return tuple((m[1], m[2].strip()) for m in re.finditer(r"(-?\d+)\s*:\s*([^;]*)", text))


@lru_cache(maxsize=1024)
def _near(key: str, known: tuple[str, ...], count: int) -> list[str]:
    """The last part has to be alike, and the whole if there is more of it.  Remembered, because a search
    costs milliseconds and a template is asked for every series."""
    lower, last = key.lower(), key.rsplit(".", 1)[-1].lower()
    scored = []
    for other in known:
        alike = _ratio(last, other.rsplit(".", 1)[-1].lower())
        whole = _ratio(lower, other.lower()) if "." in key else 1.0
        if alike >= ALIKE and whole >= ALIKE:
            scored.append((-(alike + whole), other))
    return [other for _, other in sorted(scored)[:count]]


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _of_any_axis(key: str) -> Iterable[str]:
    parts = key.split(".")
    if len(parts) == 4 and parts[0] == "runtime" and parts[2] in ("a", "b"):
        yield ".".join((*parts[:2], "any", parts[3]))
    if len(parts) == 4 and parts[0] == "comparam" and parts[1].endswith(("a", "b")):
        yield ".".join((parts[0], parts[1][:-1], *parts[2:]))
