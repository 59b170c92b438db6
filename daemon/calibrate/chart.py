"""The study's bar chart as SVG: cores along the x axis, a bar for each number of threads, a panel for each
number of nodes; the thin line over a bar goes from the fastest run to the slowest."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from xml.sax.saxutils import escape

from .figures import Summary

COLOURS = ("#004488", "#ddaa33", "#bb5566", "#66aacc", "#228833", "#aa3377")
"""Told apart with any eyes, and in grey."""
PANEL_WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 320, 60, 54, 56


def svg(found: Sequence[Summary], title: str) -> str:
    """Seconds of run time, medians.  Cost: the bars."""
    good = [each for each in found if each.runs]
    nodes = sorted({each.shape.nodes for each in good})
    threads = sorted({each.shape.threads for each in good})
    top = _nice(max((each.most for each in good), default=1.0))
    width = max(1, len(nodes)) * PANEL_WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
        f'viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for number, count in enumerate(nodes):
        panel = [each for each in good if each.shape.nodes == count]
        parts += _panel(panel, number * PANEL_WIDTH, threads, top, count)
    parts += _legend(threads)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(found: Sequence[Summary], x: float, threads: Sequence[int], top: float, nodes: int) -> list[str]:
    base, right = HEIGHT - BOTTOM, x + PANEL_WIDTH - 10
    parts = []
    for step in range(6):
        y, seconds = _y(top * step / 5, top), top * step / 5
        parts.append(f'<line x1="{x + LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{seconds:g}</text>')
    cores = sorted({each.shape.cores for each in found})
    group = (PANEL_WIDTH - LEFT - 20) / max(1, len(cores))
    bar = group * 0.8 / max(1, len(threads))
    for each in found:
        left = x + LEFT + cores.index(each.shape.cores) * group + group * 0.1
        left += threads.index(each.shape.threads) * bar
        colour = COLOURS[threads.index(each.shape.threads) % len(COLOURS)]
        y, middle = _y(each.median, top), left + bar * 0.45
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{bar * 0.9:.1f}" height="{base - y:.1f}" '
            f'fill="{colour}"><title>{escape(str(each.shape))}: {each.median:.1f} s</title></rect>'
        )
        parts.append(
            f'<line x1="{middle:.1f}" y1="{_y(each.most, top):.1f}" x2="{middle:.1f}" '
            f'y2="{_y(each.least, top):.1f}" stroke="black"/>'
        )
    for number, count in enumerate(cores):
        middle = x + LEFT + (number + 0.5) * group
        parts.append(f'<text x="{middle:.1f}" y="{base + 16}" text-anchor="middle">{count}</text>')
    what = f"cores on {'one node' if nodes == 1 else f'each of {nodes} nodes'}; seconds"
    middle = (x + LEFT + right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{base + 34}" text-anchor="middle">{what}</text>')
    return parts


def _legend(threads: Sequence[int]) -> list[str]:
    parts = []
    for number, count in enumerate(threads):
        x, colour = LEFT + number * 92, COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="40">{count} thread{"" if count == 1 else "s"}</text>')
    return parts


def _y(seconds: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(1.0, seconds / top)


def _nice(most: float) -> float:
    """The next 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** (ceil(log10(max(most, 1e-3))) - 1)
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= most * 0.999999)
