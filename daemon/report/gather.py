"""What of a staged result a page can show: curves and pictures, whatever else they turn out to be."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterable
from typing import Any

from tiltd.daemon.core.model import Record

CURVES = "curves.json"
MAX_CURVES, MAX_POINTS, MAX_CURVES_BYTES = 8, 2000, 1 << 20
MAX_PICTURES, MAX_PICTURE_BYTES = 6, 2 << 20
MAX_WORDS = 100
MAX_VALUE = 1e12
_PNG = b"\x89PNG\r\n\x1a\n"
BELOW = "thumbnails/xz.png"
_FIRST = ("thumbnails/xy.png", "thumbnails/zy.png", BELOW)

Points = tuple[tuple[float, float], ...]


class Curve(Record):
    """Points (x, y) with the words of its axes; units are in the words."""

    title: str
    x: str
    y: str
    points: Points


class Picture(Record):
    """A PNG by its name in the result, as base64."""

    name: str
    base64: str


class Gathered(Record):
    curves: tuple[Curve, ...] = ()
    pictures: tuple[Picture, ...] = ()


def gather(folder: str, names: Iterable[str]) -> Gathered:
    """Curves and pictures among the files ``names`` of a folder.

    At most 8 curves of 2,000 points, and 6 pictures of 2 MiB: PNG files at the top or in ``thumbnails/``.
    What is not as it should be is left out; raises nothing for what a file holds, or for a file that cannot
    be read.
    """
    listed = set(names)
    curves = _curves(_read(folder, CURVES, MAX_CURVES_BYTES)) if CURVES in listed else ()
    wanted = [
        name for name in listed if name.endswith(".png") and os.path.dirname(name) in ("", "thumbnails")
    ]
    wanted.sort(key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    pictures = []
    for name in wanted[:MAX_PICTURES]:
        content = _read(folder, name, MAX_PICTURE_BYTES)
        if content.startswith(_PNG):
            pictures.append(Picture(name=name, base64=base64.b64encode(content).decode("ascii")))
    return Gathered(curves=curves, pictures=tuple(pictures))


def _read(folder: str, name: str, limit: int) -> bytes:
    """All of a file of at most ``limit`` bytes; nothing of any other."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            content = file.read(limit + 1)
            return content if len(content) <= limit else b""
    return b""


def _curves(content: bytes) -> tuple[Curve, ...]:
    try:
        raw = json.loads(content)
        found = [_curve(each) for each in list(raw["curves"])[:MAX_CURVES]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return tuple(curve for curve in found if curve.points)


def _curve(raw: dict[str, Any]) -> Curve:
    pairs = [(float(x), float(y)) for x, y in raw["points"][:MAX_POINTS]]
    return Curve(
        title=str(raw["title"])[:MAX_WORDS],
        x=str(raw.get("x", ""))[:MAX_WORDS],
        y=str(raw.get("y", ""))[:MAX_WORDS],
        points=tuple(pair for pair in pairs if all(abs(value) < MAX_VALUE for value in pair)),
    )
