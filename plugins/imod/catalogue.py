"""The catalogue of batchruntomo's messages: which line means what, and what to do.  Pure but for its file.

    lines of all logs ("NAME: LINE", as a Witness leaves them) + exit status --> Matched(entry, line)

``errors.toml`` beside this file is read once, when the module is imported.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from tiltd.daemon.core.model import FailureClass, Record
from tiltd.plugins.api import KnownError

FILE = Path(__file__).with_name("errors.toml")

TELLING = (
    r"(?i)error|abort|fail|cannot|can't|could not|not found|no such|traceback|exception|denied|refused"
    r"|killed|signal|exited with|timed? ?out|no space|quota|must be|invalid|missing|too few|unable"
)
"""A line that is worth keeping of a failed run, whether the catalogue knows it or not."""

_NAMED = re.compile(r"^(?P<file>[^:\s][^:]{0,254}): (?P<line>.*)$", re.DOTALL)
_DULL = re.compile(r"^\s*$|killTimer|^exitCode:\d|^(?:CHUNK ERROR: )?\(last line\)")


class Matched(Record):
    """The entry that names a failure, and the line that matched with the log it stands in ("" for none)."""

    entry: KnownError
    line: str = ""
    file: str = ""

    @property
    def told(self) -> str:
        """``FILE: LINE``, for a person."""
        return f"{self.file}: {self.line}" if self.file else self.line


def read(text: str) -> tuple[KnownError, ...]:
    """The entries of a catalogue, in the order of the file.

    Raises ValueError with a sentence for one that lacks something, comes twice, or whose pattern is none.
    """
    seen: set[str] = set()
    entries = []
    for table in tomllib.loads(text).get("error", []):
        entry = _entry(table)
        if entry.code in seen:
            raise ValueError(f"errors.toml: the code {entry.code} comes twice: give each entry its own")
        seen.add(entry.code)
        entries.append(entry)
    return tuple(entries)


def _entry(table: dict[str, Any]) -> KnownError:
    code = str(table.get("code", "?"))
    known = {"code", "program", "pattern", "exits", "class", "cause", "remedy", "repair", "note"}
    if unknown := sorted(set(table) - known):
        raise ValueError(
            f"errors.toml: {code}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}"
        )
    if lacking := [key for key in ("code", "program", "pattern", "cause", "remedy") if not table.get(key)]:
        raise ValueError(f"errors.toml: {code}: {lacking[0]} is missing")
    note = bool(table.get("note", False))
    failure_class = table.get("class", "")
    if note == bool(failure_class):
        raise ValueError(f"errors.toml: {code}: an entry has either a class or note = true")
    try:
        re.compile(table["pattern"])
    except re.error as error:
        raise ValueError(f"errors.toml: {code}: pattern is no regular expression: {error}") from error
    if not note and failure_class not in get_args(FailureClass):
        raise ValueError(f"errors.toml: {code}: {failure_class!r} is no class of failure")
    repair = table.get("repair", "")
    return KnownError(
        code=code,
        program=table["program"],
        pattern=table["pattern"],
        exits=tuple(table.get("exits", ())),
        failure_class=failure_class or None,
        cause=table["cause"],
        remedy=table["remedy"],
        repair=repair,
        action=_action(failure_class, repair),
    )


_ACTIONS = {
    "": "nothing",
    "input": "give up",
    "config": "give up",
    "licence": "give up",
    "environment": "another node",
    "node": "another node",
    "killed": "another node",
    "lost": "another node",
    "scratch": "another node, more scratch",
    "memory": "more memory",
    "walltime": "more time",
}
REPAIRS = {
    "rawtlt": "write the tilt angles from the mdoc",
    "patch_tracking": "track patches instead of beads",
}


def _action(failure_class: str, repair: str) -> str:
    """What is done about it, as the shipped policy has it for the class."""
    done = _ACTIONS.get(failure_class, "again as it was")
    return f"fall back: {REPAIRS[repair]}; else {done}" if repair else done


CATALOGUE = read(FILE.read_text(encoding="utf-8"))
_COMPILED = tuple((entry, re.compile(entry.pattern)) for entry in CATALOGUE)


def patterns() -> tuple[str, ...]:
    """What a failed run's logs are searched for on the node: the telling words, and every known failure."""
    return (TELLING, "|".join(f"(?:{entry.pattern})" for entry in CATALOGUE if entry.failure_class))


def match(lines: Sequence[str], exit_status: int | None = None) -> Matched | None:
    """The first entry of the catalogue that is no note and that a line, or the exit status, speaks of.

    ``lines`` are ``NAME: LINE`` or bare.  Cost grows with entries times lines.
    """
    told = [_parted(line) for line in lines]
    for entry, pattern in _COMPILED:
        if entry.failure_class is None:
            continue
        for file, line in told:
            if pattern.search(line):
                return Matched(entry=entry, line=line, file=file)
        if exit_status is not None and exit_status in entry.exits:
            return Matched(entry=entry, line=f"exit status {exit_status}")
    return None


def notes(lines: Iterable[str]) -> tuple[Matched, ...]:
    """Every note of the catalogue that a line speaks of, each once, with its last line."""
    found: dict[str, Matched] = {}
    for file, line in map(_parted, lines):
        for entry, pattern in _COMPILED:
            if entry.failure_class is None and pattern.search(line):
                found[entry.code] = Matched(entry=entry, line=line, file=file)
    return tuple(found.values())


def last_telling(lines: Sequence[str], count: int = 3) -> tuple[str, ...]:
    """The last lines that sound like a reason, for a failure that the catalogue does not know."""
    telling = re.compile(TELLING)
    kept = [line for line in lines if not _DULL.search(_parted(line)[1])]
    wanted = [line for line in kept if telling.search(_parted(line)[1])] or kept
    return tuple(wanted[-count:])


def _parted(line: str) -> tuple[str, str]:
    """A witness' note as (file, line); a bare line has no file."""
    found = _NAMED.match(line)
    if found and re.search(r"\.(?:log|out|info)$", found["file"]):
        return found["file"], found["line"]
    return "", line
