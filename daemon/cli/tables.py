"""Text for people: aligned tables, times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tiltd.daemon.text import shown


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the last one free; every cell is escaped.  Ends in a newline."""
    cells = [list(head), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def instant(at: float | None) -> str:
    """UTC, to the second; "-" for none."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else "-"
