"""Numbers -> drawings: inline SVG without scripts, links or fonts of its own.  Pure.

Colours are the page's (``currentColor`` and CSS variables), so that a drawing can be read on light and
on dark.
Every point and bar carries its figures as a ``<title>``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tiltd.daemon.core.model import Record

from .gather import Points

WIDTH, HEIGHT = 460.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 12.0, 10.0, 42.0
_BAR, _GAP, _LABEL, _TEXT = 18.0, 8.0, 190.0, 90.0
_LABEL_CHARACTERS = 28


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, about ``count``; steps are 1, 2 or 5 times a power of 10."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= rough), 10.0 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def curve(points: Points, x_words: str, y_words: str, title: str) -> str:
    """A line with its points over two axes; the y axis begins at 0 where no value is negative."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    x_range = _range(min(xs), max(xs))
    y_range = _range(min(0.0, *ys) if min(ys) >= 0 else min(ys), max(ys))
    places = [
        (_scaled(x, x_range, _LEFT, WIDTH - _RIGHT), _scaled(y, y_range, HEIGHT - _BOTTOM, _TOP))
        for x, y in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{_figure(a)}: {_figure(b)}</title></circle>'
        for (x, y), (a, b) in zip(places, points, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">'
        f"{_x_axis(x_range, x_words)}{_y_axis(y_range, y_words)}"
        f'<polyline class="line" points="{line}"/><g class="dots">{dots}</g></svg>'
    )


class Bar(Record):
    """A row: its name, its value (not negative), and the value in words.  ``faint``: a sum of others."""

    name: str
    value: float
    words: str
    faint: bool = False


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars, as long as their values."""
    height = len(rows) * (_BAR + _GAP) + _GAP
    largest = max((row.value for row in rows), default=0.0) or 1.0
    room = 2 * WIDTH - _LABEL - _TEXT
    parts = []
    for number, row in enumerate(rows):
        y, width = _GAP + number * (_BAR + _GAP), max(1.0, row.value / largest * room)
        middle, short = y + _BAR / 2, row.name[:_LABEL_CHARACTERS]
        kind = "bar faint" if row.faint else "bar"
        parts.append(
            f'<text x="{_LABEL - 8:g}" y="{middle:.1f}" class="end">{escape(short)}</text>'
            f'<rect class="{kind}" x="{_LABEL:g}" y="{y:.1f}" width="{width:.1f}" height="{_BAR:g}" rx="3">'
            f"<title>{escape(row.name)}: {escape(row.words)}</title></rect>"
            f'<text x="{_LABEL + width + 6:.1f}" y="{middle:.1f}">{escape(row.words)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {2 * WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scaled(value: float, span: tuple[float, float], start: float, end: float) -> float:
    return start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def _x_axis(span: tuple[float, float], words: str) -> str:
    y = HEIGHT - _BOTTOM
    marks = "".join(
        f'<text x="{_scaled(tick, span, _LEFT, WIDTH - _RIGHT):.1f}" y="{y + 14:g}" class="middle">'
        f"{_figure(tick)}</text>"
        for tick in ticks(*span, 6)
    )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<line class="axis" x1="{_LEFT:g}" x2="{WIDTH - _RIGHT:g}" y1="{y:g}" y2="{y:g}"/>{marks}'
        f'<text x="{middle:.1f}" y="{HEIGHT - 8:g}" class="middle words">{escape(words)}</text>'
    )


def _y_axis(span: tuple[float, float], words: str) -> str:
    marks = []
    for tick in ticks(*span):
        y = _scaled(tick, span, HEIGHT - _BOTTOM, _TOP)
        marks.append(
            f'<line class="grid" x1="{_LEFT:g}" x2="{WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6:g}" y="{y:.1f}" class="end">{_figure(tick)}</text>'
        )
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {middle:.1f})"'
    return (
        "".join(marks) + f'<text x="12" y="{middle:.1f}" class="middle words" {turned}>{escape(words)}</text>'
    )


def _figure(value: float) -> str:
    return f"{value:.6g}"
