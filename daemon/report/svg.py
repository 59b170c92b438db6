"""Numbers -> drawings: inline SVG without scripts, links or fonts of its own.  Pure.

Colours are the page's (``currentColor`` and CSS variables), so that a drawing can be read on light and
on dark.
Every point and bar carries its figures as a ``<title>``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from html import escape

from tiltd.daemon.core.model import Record

from .gather import Points

WIDTH, HEIGHT = 460.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 12.0, 10.0, 42.0
_END, _FOOT = WIDTH - _RIGHT, HEIGHT - _BOTTOM
_X_MIDDLE, _Y_MIDDLE = (_LEFT + _END) / 2, (_TOP + _FOOT) / 2
# What is the same on every page is put together once.
_CURVE = f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
_X_LINE = f'<line class="axis" x1="{_LEFT:g}" x2="{_END:g}" y1="{_FOOT:g}" y2="{_FOOT:g}"/>'
_X_MARK = f'" y="{_FOOT + 14:g}" class="middle">'
_Y_MARK = f'<text x="{_LEFT - 6:g}" y="'
_X_WORDS = f'<text x="{_X_MIDDLE:.1f}" y="{HEIGHT - 8:g}" class="middle words">'
_Y_WORDS = (
    f'<text x="12" y="{_Y_MIDDLE:.1f}" class="middle words" transform="rotate(-90 12 {_Y_MIDDLE:.1f})">'
)
_GRID = f'<line class="grid" x1="{_LEFT:g}" x2="{_END:g}" '
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
    xs, ys = zip(*points, strict=True)
    x_span = _span(min(xs), max(xs))
    y_span = _span(min(0.0, min(ys)), max(ys))
    places = list(zip(*_columns(xs, x_span), _up(ys, y_span), ys, strict=True))
    line = " ".join([f"{x},{y}" for x, _, y, _ in places])
    dots = "".join(
        [f'<circle cx="{x}" cy="{y}" r="2.6"><title>{a}: {b:.6g}</title></circle>' for x, a, y, b in places]
    )
    return (
        f'{_CURVE}aria-label="{escape(title)}">{_x_axis(x_span, x_words)}{_y_axis(y_span, y_words)}'
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
        middle, short, words = y + _BAR / 2, escape(row.name[:_LABEL_CHARACTERS]), escape(row.words)
        kind = "bar faint" if row.faint else "bar"
        parts.append(
            f'<text x="{_LABEL - 8:g}" y="{middle:.1f}" class="end">{short}</text>'
            f'<rect class="{kind}" x="{_LABEL:g}" y="{y:.1f}" width="{width:.1f}" height="{_BAR:g}" rx="3">'
            f"<title>{escape(row.name)}: {words}</title></rect>"
            f'<text x="{_LABEL + width + 6:.1f}" y="{middle:.1f}">{words}</text>'
        )
    return (
        f'<svg viewBox="0 0 {2 * WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _span(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _across(values: Sequence[float], span: tuple[float, float]) -> list[str]:
    low, high = span
    return [f"{_LEFT + (value - low) / (high - low) * (_END - _LEFT):.1f}" for value in values]


def _up(values: Sequence[float], span: tuple[float, float]) -> list[str]:
    low, high = span
    return [f"{_FOOT + (value - low) / (high - low) * (_TOP - _FOOT):.1f}" for value in values]


@functools.lru_cache(maxsize=8)
def _columns(xs: Sequence[float], span: tuple[float, float]) -> tuple[list[str], list[str]]:
    """Where they are, and as figures.  Remembered: the curves of a page, and of a session, share them."""
    return _across(xs, span), [f"{x:.6g}" for x in xs]


# Remembered: the series of a session have as many tilts, between the same angles, as a rule.
@functools.lru_cache(maxsize=32)
def _x_axis(span: tuple[float, float], words: str) -> str:
    values = ticks(*span, 6)
    marks = "".join(
        [
            f'<text x="{x}{_X_MARK}{value:.6g}</text>'
            for x, value in zip(_across(values, span), values, strict=True)
        ]
    )
    return f"{_X_LINE}{marks}{_X_WORDS}{escape(words)}</text>"


@functools.lru_cache(maxsize=32)
def _y_axis(span: tuple[float, float], words: str) -> str:
    values = ticks(*span)
    marks = "".join(
        [
            f'{_GRID}y1="{y}" y2="{y}"/>{_Y_MARK}{y}" class="end">{value:.6g}</text>'
            for y, value in zip(_up(values, span), values, strict=True)
        ]
    )
    return f"{marks}{_Y_WORDS}{escape(words)}</text>"
