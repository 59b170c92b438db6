"""Progress on a terminal, written over itself; elsewhere a line for each change; then the table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tiltd.daemon.text import shown

from .checks import Check
from .follow import Seen
from .shooting import Expected, Microscope


class Screen:
    """``quiet`` prints nothing at all (``--json``)."""

    def __init__(self, expected: Sequence[Expected], tilt_count: int, quiet: bool = False) -> None:
        self._expected, self._tilt_count, self._quiet = expected, tilt_count, quiet
        self._terminal = sys.stdout.isatty() and not quiet
        self._drawn = 0
        self._told: dict[str, str] = {}

    def say(self, text: str = "") -> None:
        """A line that stays."""
        if not self._quiet:
            self._drawn = 0
            print(text, flush=True)

    def draw(self, seconds: float, microscope: Microscope, seen: Mapping[str, Seen]) -> None:
        """The present state of every series."""
        lines = []
        for series in self._expected:
            words = progress_words(series, microscope, seen.get(series.name, Seen()))
            tilts = microscope.tilts.get(series.name, 0)
            count = f"{tilts:>3} tilts" if series.outcome != "ignored" else f"{tilts:>3} tiles"
            lines.append(f"  {series.name:<12} {series.shot_as:<26} {count}   {words}")
            if not self._terminal and self._told.get(series.name) != words:
                self._told[series.name] = words
                self.say(f"  {seconds:5.1f} s  {series.name:<12} {words}")
        if self._terminal:
            self._redraw([f"  {seconds:5.1f} s", *lines])

    def _redraw(self, lines: list[str]) -> None:
        width = shutil.get_terminal_size((100, 24)).columns - 1
        up = f"\033[{self._drawn}A" if self._drawn else ""
        print(up + "".join(f"\033[K{line[:width]}\n" for line in lines), end="", flush=True)
        self._drawn = len(lines)


def progress_words(series: Expected, microscope: Microscope, seen: Seen) -> str:
    """One or two words on where a series stands."""
    if seen.state == "ignored":
        return "ignored, no tilt series"
    if "partial" in seen.held:
        return "held: partial"
    if seen.state in ("", "arriving"):
        done = series.name not in microscope.tilts or microscope.shooting
        return "is being shot" if done else "waits for the end of changes"
    place = f" on {', '.join(seen.nodes)}" if seen.nodes and seen.state != "ready" else ""
    why = f" ({shown(seen.reason)})" if seen.reason and not seen.record else ""
    return f"{seen.state}{place}{why}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of :func:`row`, aligned, with the reason below where there is one."""
    head = ("series", "shot as", "tilts", "came out as", "node", "cores", "seconds", "quality", "result")
    cells = [tuple(_cell(row[key]) for key in _KEYS) for row in rows]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    right = {2, 5, 6}

    def line(values: Sequence[str]) -> str:
        parts = [
            v.rjust(w) if i in right else v.ljust(w)
            for i, (v, w) in enumerate(zip(values, widths, strict=True))
        ]
        return ("  " + "  ".join(parts)).rstrip()

    lines = [line(head), line(["-" * width for width in widths])]
    for row, values in zip(rows, cells, strict=True):
        lines.append(line(values))
        if row["reason"]:
            lines.append(f"      {shown(row['reason'])}")
    return "\n".join(lines)


_KEYS = ("series", "shot_as", "tilts", "outcome", "node", "cores", "seconds", "quality", "result")


def row(series: Expected, seen: Seen, microscope: Microscope, folder: str) -> dict[str, Any]:
    """One line of the table.  ``seconds`` is from the last tilt to the tomogram at its final place."""
    record = seen.record or {}
    attempts = record.get("attempts") or [{}]
    delivered = seen.state == "delivered"
    last = microscope.last_tilt_at.get(series.name)
    seconds = round(seen.changed_at - last, 1) if delivered and last else None
    return {
        "series": series.name,
        "shot_as": series.shot_as,
        "tilts": microscope.tilts.get(series.name, 0),
        "outcome": "held: partial" if "partial" in seen.held else seen.state or "never seen",
        "node": ", ".join(seen.nodes) if delivered else "",
        "cores": attempts[-1].get("placement", {}).get("cores") if delivered else None,
        "seconds": seconds,
        "quality": _quality(record) if delivered else "",
        "result": str(record.get("result_path", "")).removeprefix(folder + "/") if delivered else "",
        "reason": seen.reason,
    }


def _quality(record: Mapping[str, Any]) -> str:
    """The pipeline's verdict, and how far the views still disagree."""
    verdict, residual = (
        str(record.get("verdict") or ""),
        (record.get("quality") or {}).get("residual_mean_px"),
    )
    return verdict if residual is None else f"{verdict}, {residual:.2f} px"


def _cell(value: Any) -> str:
    return "" if value is None else shown(str(value))


def verdict(checks: Sequence[Check]) -> str:
    """One line for each promise."""
    return "\n".join(
        f"  {'ok ' if check.kept else 'NO '} {shown(check.promise)}"
        + ("" if check.kept or not check.detail else f"\n        {shown(check.detail)}")
        for check in checks
    )
