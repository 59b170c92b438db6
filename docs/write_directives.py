"""The tables in docs/directives.md from what tiltd knows of directives; ``--check`` compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tiltd.plugins.imod.csv_table import Entry
from tiltd.plugins.imod.known import KNOWN

PAGE = Path(__file__).parent / "directives.md"
BEGIN = "<!-- written by docs/write_directives.py: begin -->\n"
END = "<!-- written by docs/write_directives.py: end -->\n"


def tables() -> Iterator[str]:
    section = ""
    for entry in KNOWN.entries.values():
        if entry.section != section:
            section = entry.section
            yield f"\n### {section}\n\n| directive | type | in | meaning |\n|---|---|---|---|\n"
        place = "B" * entry.batch + "T" * entry.template
        yield f"| `{entry.key}` | {entry.type} | {place} | {_meaning(entry)} |\n"
    yield "\n"


def _meaning(entry: Entry) -> str:
    choices = "; ".join(f"{value}: {meaning}" for value, meaning in entry.choices)
    words = entry.definition + (f" ({choices})" if choices else "")
    return f"{words}; {entry.ours}" if entry.ours else words


def main(argv: list[str]) -> int:
    """Exit code 1 if the page is not what the table says."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + "".join(tables()) + END + rest.split(END)[1]
    if "--check" not in argv:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if text == wanted:
        return 0
    print("docs/directives.md is old; run: python docs/write_directives.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
