"""docs/errors.md from the catalogue of messages: ``docs/write_errors.py`` writes it, ``--check`` compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tiltd.plugins.api import KnownError
from tiltd.plugins.imod.catalogue import CATALOGUE

PAGE = Path(__file__).parent / "errors.md"

HEAD = """\
# Messages of batchruntomo

What batchruntomo and the programs below it say when something is wrong, what it means, and what to do. tiltd searches all logs of a failed attempt for these: the main log, those of single steps, `processchunks.out` (where the cause of a failed chunk stands, and nowhere else) and eTomo's. The first entry that any line matches, in the order of the catalogue, names the failure; `tiltd show NAME` tells it with the line and the log that it stands in. What the catalogue does not know is counted as `unknown`, with the last telling lines.

The class decides what follows, by `[retry]` of the [policy](policy.md#retry). "Fall back" stands where a further attempt may change something by itself (`retry.repair`). `tiltd errors` prints the same list; `tiltd errors --match 'LINE'` tells which entry speaks of a line.

This page is written from the catalogue by `make docs`; read on IMOD 4.8.2, other versions word some messages differently.
"""  # noqa: E501 - a paragraph is a line


def page(entries: tuple[KnownError, ...]) -> str:
    """By program: failures first, then what is only worth knowing."""
    failures = [entry for entry in entries if entry.failure_class]
    notes = [entry for entry in entries if not entry.failure_class]
    parts = [HEAD]
    for program in sorted({entry.program for entry in failures}):
        parts.append("\n".join(_table(program, [entry for entry in failures if entry.program == program])))
    parts.append("\n".join(_notes(notes)))
    return "\n".join(parts)


def _table(program: str, entries: list[KnownError]) -> Iterator[str]:
    yield f"## {program}" if program != "any" else "## Several programs"
    yield ""
    yield "| entry | class | what it means | what to do | what tiltd does |"
    yield "|---|---|---|---|---|"
    for entry in entries:
        cells = (entry.cause, entry.remedy, entry.action)
        yield f"| `{entry.code}` | {entry.failure_class} | {' | '.join(map(_cell, cells))} |"
    yield ""
    for entry in entries:
        exits = f" or exit status {' or '.join(map(str, entry.exits))}" if entry.exits else ""
        yield f"* `{entry.code}`: {_code(entry.pattern)}{exits}"
    yield ""


def _notes(entries: list[KnownError]) -> Iterator[str]:
    yield "## Worth knowing"
    yield ""
    yield "No failures by themselves."
    yield ""
    yield "| entry | program | what it means | what to do |"
    yield "|---|---|---|---|"
    for entry in entries:
        yield f"| `{entry.code}` | {entry.program} | {_cell(entry.cause)} | {_cell(entry.remedy)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def main(argv: list[str]) -> int:
    """Exit code 1 if the page is not what the catalogue says."""
    if "--check" not in argv:
        PAGE.write_text(page(CATALOGUE), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page(CATALOGUE):
        return 0
    print("docs/errors.md is old; run: python docs/write_errors.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
