"""Amounts with their unit, as people write them: "2.6GB", "90min", "1h30min".

A bare number for a span or for an amount of bytes is the commonest mistake in a configuration (90 of
what?), so policy and settings ask for the unit; only :func:`parse_bytes` takes a plain number, as bytes,
for places such as ``--size`` where another program's output is pasted.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

BYTE_UNITS: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
SECOND_UNITS: dict[str, int] = {"d": 86400, "h": 3600, "min": 60, "s": 1}

BYTES_MAX = 2**63 - 1
"""What a file offset, and SQLite's integer, can hold."""
SECONDS_MAX = 100 * 365 * 86400
"""A hundred years: beyond it a span is a slip of the keyboard, and epoch arithmetic stays exact below."""

BYTES_ALLOWED = 'a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as "2.6GB"'
SECONDS_ALLOWED = 'numbers with s, min, h or d, such as "90min" or "1h30min"'

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_BYTES = re.compile(rf"({_NUMBER}) ?([A-Za-z]{{0,8}})", re.ASCII)
_SPAN = re.compile(rf"({_NUMBER}) ?([A-Za-z]{{1,8}}) ?", re.ASCII)


def parse_bytes(value: str | int) -> int:
    """Whole bytes; a fraction of a byte is rounded up.  A plain number is bytes.

    Raises ValueError with a sentence that names what is allowed.

    >>> parse_bytes("2.6GB"), parse_bytes("1.5 KiB"), parse_bytes(4096)
    (2600000000, 1536, 4096)
    """
    match = _BYTES.fullmatch(str(value).strip()) if _is_amount(value) else None
    if match is None:
        meant = value.strip().replace(",", ".") if isinstance(value, str) else ""
        hint = f'; did you mean "{meant}"?' if meant.count(".") == 1 and _BYTES.fullmatch(meant) else ""
        raise ValueError(f"{shown_value(value)} is no amount of bytes: allowed is {BYTES_ALLOWED}{hint}")
    number, unit = match.groups()
    size = BYTE_UNITS.get(unit or "B")
    if size is None:
        raise ValueError(_unknown_unit(value, unit, _BYTE_SLIPS, f"allowed is {BYTES_ALLOWED}"))
    total = math.ceil(Fraction(number) * size)
    if total > BYTES_MAX:
        raise ValueError(
            f"{shown_value(value)} is more than any file system holds: allowed is {BYTES_ALLOWED}"
        )
    return total


def parse_seconds(value: str) -> float:
    """Seconds of a span; the parts are added, each unit at most once and the larger first.

    Raises ValueError with a sentence that names what is allowed; also for a bare number.

    >>> parse_seconds("90min"), parse_seconds("1h30min"), parse_seconds("0.5 s")
    (5400.0, 5400.0, 0.5)
    """
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(_NUMBER, text) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        raise ValueError(f"{shown_value(value)} has no unit: allowed is {SECONDS_ALLOWED}")
    total, position, left = Fraction(0), 0, list(SECOND_UNITS)
    while match := _SPAN.match(text, position):
        number, unit = match.groups()
        if unit not in left:
            raise ValueError(_unknown_unit(value, unit, _SECOND_SLIPS, f"allowed is {SECONDS_ALLOWED}"))
        left = left[left.index(unit) + 1 :]
        total += Fraction(number) * SECOND_UNITS[unit]
        position = match.end()
    if position == 0 or position < len(text):
        hint = f'; did you mean "{meant}"?' if (meant := _clock_meant(text)) else ""
        raise ValueError(f"{shown_value(value)} is no span of time: allowed is {SECONDS_ALLOWED}{hint}")
    if total > SECONDS_MAX:
        raise ValueError(f"{shown_value(value)} is more than a hundred years: allowed is {SECONDS_ALLOWED}")
    return float(total)


def show_bytes(size_bytes: float) -> str:
    """Decimal units, three figures: what ``df`` would not say but the field's papers do.

    >>> show_bytes(2_600_000_000), show_bytes(999), show_bytes(0)
    ('2.6GB', '999B', '0B')
    """
    if size_bytes < 0:
        return "-" + show_bytes(-size_bytes)
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= scale * 0.9995:
            return _three_figures(size_bytes / scale) + unit
    return f"{size_bytes:.0f}B"


def show_seconds(seconds: float) -> str:
    """The two largest units that matter, in the spelling that :func:`parse_seconds` reads.

    >>> show_seconds(5400), show_seconds(0.25), show_seconds(200_000), show_seconds(0)
    ('1h30min', '0.25s', '2d8h', '0s')
    """
    if seconds < 0:
        return "-" + show_seconds(-seconds)
    if seconds < 59.5:
        return f"{round(seconds, 3):g}s" if seconds < 10 else f"{seconds:.0f}s"
    for large, small in (("d", "h"), ("h", "min"), ("min", "s")):
        step = SECOND_UNITS[small]
        rounded = int(seconds / step + 0.5) * step
        if rounded >= SECOND_UNITS[large]:
            count, rest = divmod(rounded, SECOND_UNITS[large])
            return f"{count}{large}" + (f"{rest // step}{small}" if rest else "")
    return f"{seconds:.0f}s"


def shown_value(value: object) -> str:
    """A value as it can stand in a sentence: quoted, control characters escaped, at most 60 characters."""
    if isinstance(value, int) and abs(value) >= 10**50:
        return "a number of more than 50 digits"  # str() of an int refuses thousands of digits
    text = ascii(value)
    text = '"' + text[1:-1] + '"' if isinstance(value, str) else text
    return text if len(text) <= 60 else text[:57] + "..."


_BYTE_SLIPS = {unit.lower(): unit for unit in BYTE_UNITS} | {
    letter + tail: "kB" if letter == "k" else letter.upper() + "B"
    for letter in "kmgt"
    for tail in ("", "b", "byte", "bytes")
}
_BYTE_SLIPS |= {f"{letter}i": f"{letter.upper()}iB" for letter in "kmgt"} | {"byte": "B", "bytes": "B"}
_SECOND_SLIPS = (
    dict.fromkeys(("sec", "secs", "second", "seconds"), "s")
    | dict.fromkeys(("m", "mins", "minute", "minutes"), "min")
    | dict.fromkeys(("hr", "hrs", "hour", "hours"), "h")
    | dict.fromkeys(("day", "days"), "d")
    | {unit: unit for unit in SECOND_UNITS}
)


def _clock_meant(text: str) -> str:
    """``12:30:00``, as resource managers write a walltime -> ``12h30min``; else ""."""
    match = re.fullmatch(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?", text, re.ASCII)
    parts = zip(match.groups(), ("h", "min", "s"), strict=True) if match else ()
    return "".join(f"{int(number)}{unit}" for number, unit in parts if number and int(number))


def _is_amount(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20
    )


def _unknown_unit(value: object, unit: str, slips: dict[str, str], allowed: str) -> str:
    meant = slips.get(unit.lower())
    if meant == unit:
        return f"{shown_value(value)} has the unit {unit} twice or out of order (largest first): {allowed}"
    hint = f'; did you mean "{meant}"?' if meant else ""
    return f'{shown_value(value)} has the unknown unit "{unit}": {allowed}{hint}'


def _three_figures(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
