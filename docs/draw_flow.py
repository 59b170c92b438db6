"""Draws docs/flow.svg: what happens to a tilt series, station by station.

.venv/bin/python docs/draw_flow.py            write the picture
.venv/bin/python docs/draw_flow.py --check    exit 1 if the file is another one
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from tiltd.daemon.core.model import State

PICTURE = Path(__file__).parent / "flow.svg"
WIDTH, TOP, BOX_WIDTH, BOX_HEIGHT, GAP = 960, 34, 210, 158, 30
LINE, MARGIN = 19, 15


class Box(NamedTuple):
    """A station: who does it, what happens there, and where a series stands meanwhile."""

    title: str
    lines: tuple[str, ...]
    states: tuple[State, ...]


BOXES = (
    Box(
        "microscope",
        ("SerialEM writes", "TS_01.mrc", "TS_01.mrc.mdoc", "", "tiltd only reads"),
        (State.ARRIVING,),
    ),
    Box(
        "tiltd",
        (
            "is it complete?",
            "which node has cores,",
            "memory, scratch, time?",
            "submit, follow,",
            "or say why not",
        ),
        (State.READY, State.RESERVED, State.QUEUED),
    ),
    Box(
        "compute node",
        (
            "claim, reserve scratch",
            "copy in, checksum",
            "align, reconstruct",
            "copy out, checksum",
            "clean up, always",
        ),
        (State.RUNNING,),
    ),
    Box(
        "your data",
        ("verified, then put there", "by one rename:", "tomogram.mrc", "central.png", "manifest.json"),
        (State.COLLECTING, State.DELIVERED),
    ),
)

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-label="From the microscope by tiltd and a compute node to your data">
<style>
  rect {{ fill: #f6f8fa; stroke: #57606a; stroke-width: 1.2; }}
  text {{ font: 14px sans-serif; fill: #1f2328; }}
  .title {{ font-weight: bold; }}
  .state {{ font: 12px monospace; fill: #0a5cad; }}
  path {{ fill: none; stroke: #57606a; stroke-width: 1.6; marker-end: url(#tip); }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
  <polygon points="0,0 8,4 0,8" fill="#57606a"/></marker></defs>
<rect x="0" y="0" width="{width}" height="{height}" style="fill: #ffffff; stroke: none"/>
"""


def text(x: float, y: float, words: str, css: str = "") -> str:
    mark = f' class="{css}"' if css else ""
    return f'<text x="{x:g}" y="{y:g}"{mark}>{escape(words)}</text>'


def box(number: int, what: Box) -> list[str]:
    x = number * (BOX_WIDTH + GAP) + MARGIN
    found = [f'<rect x="{x}" y="{TOP}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>']
    found.append(text(x + MARGIN, TOP - 10, what.title, "title"))
    found += [text(x + MARGIN, TOP + 26 + n * LINE, line) for n, line in enumerate(what.lines) if line]
    states = " ".join(state.value for state in what.states)
    found.append(text(x + MARGIN, TOP + BOX_HEIGHT - 16, states, "state"))
    if number:
        found.append(f'<path d="M {x - GAP + 2} {TOP + 70} L {x - 2} {TOP + 70}"/>')
    return found


def drawn() -> str:
    height = TOP + BOX_HEIGHT + 64
    parts = [part for number, what in enumerate(BOXES) for part in box(number, what)]
    foot = "journal: every fact, before anything is done  ·  policy: yours to adjust  ·  /metrics: all of it"
    parts.append(f'<rect x="{MARGIN}" y="{height - 44}" width="{WIDTH - GAP}" height="32" rx="6"/>')
    parts.append(text(2 * MARGIN, height - 23, foot))
    return HEAD.format(width=WIDTH, height=height) + "\n".join(parts) + "\n</svg>\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        same = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn()
        if not same:
            print(f"{PICTURE} is old: run make docs", file=sys.stderr)
        return int(not same)
    PICTURE.write_text(drawn(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
