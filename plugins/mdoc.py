"""SerialEM's mdoc, read by key and tolerantly.  Pure: bytes in, sections and problems out.

The format is ``key = value`` lines, ``[T = title]`` lines, then one ``[ZValue = N]`` section an image
(``[FrameSet = N]`` in the mdoc of one frame stack).  The acquisition notes list what real files do to a
parser: keys in any order, blanks, empty values, ``NaN``, Latin-1 bytes, carriage returns, a last section
that is half written.  Nothing here raises, and the cost grows with the length of the text only.
"""

from __future__ import annotations

import calendar
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping

from tiltd.daemon.core.model import Problem, Record

MAX_BYTES = 8 * 1024 * 1024
"""More than ten times the mdoc of 200 tilts with 40 keys each: what is longer is no mdoc."""

MAX_SECTIONS = 20_000
MAX_NOISE_LINES = 20
RECENT_GAPS = 10
DATE_TIME_MAX = 64
"""Characters of a DateTime that are looked at: three times what the longest has."""

_NAME = re.compile(r"\s*(?:\[\s*([A-Za-z]\w{0,40})|([A-Za-z_]\w{0,60}))\s*")
"""What may stand before a "=": the kind of a section or title behind a bracket, or else a key."""

_DATE = re.compile(
    r"\s*(\d{1,4})[-/. ]([A-Za-z]{3,9}|\d{1,2})[-/. ](\d{1,4})[\sT]+(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)"
)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_IMAGE_SIZE = re.compile(r"(\d{1,6})\s+(\d{1,6})\s*$")
_AXIS = re.compile(r"tilt axis (?:rotation )?angle\s*[=:]\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)


class Section(Record):
    """One bracketed section: ``[kind = value]`` and the entries below it."""

    kind: str
    value: str
    entries: dict[str, str]

    @property
    def number(self) -> int | None:
        return int(self.value) if self.value.isdecimal() and len(self.value) <= 7 else None

    def figure(self, key: str) -> float | None:
        """A finite number, or ``None`` for a missing, empty or ``NaN`` value."""
        return figure_at(self.entries, key)


class Mdoc(Record):
    """A parsed mdoc; ``images`` are those of its sections that tell of an image.  ``whole`` is false when
    the last line has no end: it is being written."""

    entries: dict[str, str]
    titles: tuple[str, ...]
    sections: tuple[Section, ...]
    images: tuple[Section, ...]
    whole: bool
    problems: tuple[Problem, ...] = ()

    @property
    def is_frame_set(self) -> bool:
        """The mdoc of one tilt's frames, not of a series."""
        return not self.images and any(section.kind == "FrameSet" for section in self.sections)

    @property
    def is_montage(self) -> bool:
        kinds = [section.kind for section in self.sections]
        return "MontSection" in kinds or figure_at(self.entries, "Montage") == 1


def parse(data: bytes) -> Mdoc:
    """Read an mdoc.  What cannot be read stands in ``problems``; what can is given all the same."""
    if len(data) > MAX_BYTES:
        return _nothing("mdoc_too_large", f"more than {MAX_BYTES} bytes: this is no mdoc of a tilt series")
    entries: dict[str, str] = {}
    titles: list[str] = []
    sections: list[Section] = []
    current, noise = entries, 0
    names: dict[str, tuple[str, str]] = {}  # by what stands before the "=": every section has the same ones
    for line in data.decode("latin-1").split("\n"):
        before, equals, value = line.partition("=")
        kind, key = names.get(before) or names.setdefault(before, _named(before))
        if key and equals:
            current[key] = value.strip()
            continue
        if kind and equals:
            value = value.strip().removesuffix("]").rstrip()
            if kind == "T":
                titles.append(value)
                continue
            current = {}
            sections.append(Section(kind=kind, value=value, entries=current))
        elif line.strip():
            noise += 1
        if noise > MAX_NOISE_LINES or len(sections) > MAX_SECTIONS:
            return _nothing("mdoc_noise", f"{noise} lines are neither 'key = value' nor '[section]'")
    images = tuple([section for section in sections if section.kind == "ZValue"])
    return Mdoc(
        entries=entries,
        titles=tuple(titles),
        sections=tuple(sections),
        images=images,
        whole=data.endswith(b"\n"),
        problems=tuple(_numbering(images)),
    )


def _named(before: str) -> tuple[str, str]:
    """The kind of a section or title that begins so, or else a key; neither where it is noise."""
    match = _NAME.fullmatch(before)
    return (match[1] or "", match[2] or "") if match else ("", "")


def _nothing(code: str, detail: str) -> Mdoc:
    problem = Problem(code=code, detail=detail)
    return Mdoc(entries={}, titles=(), sections=(), images=(), whole=False, problems=(problem,))


def _numbering(images: Iterable[Section]) -> list[Problem]:
    numbers = [section.number for section in images]
    if None in numbers:
        return [Problem(code="zvalue_unreadable", detail="a [ZValue] section has no number")]
    known = sorted(number for number in numbers if number is not None)
    if len(set(known)) < len(known):
        twice = next(a for a, b in itertools.pairwise(known) if a == b)
        return [Problem(code="zvalue_twice", detail=f"[ZValue = {twice}] stands there twice")]
    missing = next((n for n, number in enumerate(known) if n != number), None)
    if missing is not None:
        return [Problem(code="zvalue_gap", detail=f"[ZValue = {missing}] is missing")]
    return []


def figure(text: str) -> float | None:
    """The first word as a finite number, or ``None``."""
    try:
        value = float(text)
    except ValueError:
        words = text.split(maxsplit=1)
        return figure(words[0]) if words and words[0] != text else None
    return value if math.isfinite(value) else None


def figure_at(entries: Mapping[str, str], key: str) -> float | None:
    """That of a key; most keys that are asked for and not there are asked for in every section."""
    text = entries.get(key)
    return figure(text) if text else None


def seconds_of(date_time: str) -> float | None:
    """A DateTime as seconds on a scale of its own: for differences only, never for "now".

    Written with one or two blanks, a year of two or four digits, the year first or last, a month as name
    or number, or empty; ``None`` when it cannot be read.
    """
    return _seconds_of(date_time[:DATE_TIME_MAX])


@functools.lru_cache(maxsize=512)
def _seconds_of(date_time: str) -> float | None:
    """Those of a series are asked for twice: for its gaps, and for its beginning."""
    match = _DATE.match(date_time)
    if not match:
        return None
    first, month_text, last, hour, minute, second = match.groups()
    year, day = (first, last) if len(first) > 2 else (last, first)
    month = int(month_text) if month_text.isdigit() else _MONTHS.find(month_text[:3].lower()) // 4 + 1
    century = 2000 if len(year) <= 2 else 0
    if not 1 <= month <= 12 or not 1 <= int(day) <= 31 or century + int(year) < 1:
        return None
    midnight = _midnight(century + int(year), month, int(day))
    return midnight + int(hour) * 3600 + int(minute) * 60 + float(second)


@functools.lru_cache(maxsize=16)
def _midnight(year: int, month: int, day: int) -> int:
    """Most images of a series are of one day, and this costs more than all else that is done for a time."""
    return calendar.timegm((year, month, day, 0, 0, 0))


def largest_recent_gap_seconds(images: Iterable[Section]) -> float:
    """The largest of the last ten gaps between images, whatever order the sections stand in; 0 if unknown."""
    times = sorted(
        time for section in images if (time := seconds_of(section.entries.get("DateTime", ""))) is not None
    )
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return max(gaps[-RECENT_GAPS:], default=0.0)


def first_acquired(images: Iterable[Section]) -> str:
    """The earliest DateTime as it is written, which with the name tells a series from its restart."""
    texts = [text for section in images if (text := section.entries.get("DateTime", "").strip())]
    times = ((seconds_of(text), text) for text in texts)
    return min(times, key=lambda time: (time[0] is None, time[0] or 0.0), default=(None, ""))[1]


def tilt_axis_deg(mdoc: Mdoc) -> float | None:
    """The tilt axis in degrees, within -180..180, or ``None``.

    From the title "Tilt axis angle = ..", else from the images' RotationAngle, which SerialEM writes as the
    tilt axis + 90 (seen in published mdocs: title -86.7, RotationAngle 3.35).
    """
    for title in mdoc.titles:
        if match := _AXIS.search(title):
            return float(match[1])
    rotation = common_figure(mdoc.images, "RotationAngle")
    return None if rotation is None else (rotation - 90.0 + 180.0) % 360.0 - 180.0


def common_figure(images: Iterable[Section], key: str) -> float | None:
    """The first readable value of a key that is the same for all images, as a voltage is."""
    return next((value for section in images if (value := section.figure(key)) is not None), None)


def global_or_common(mdoc: Mdoc, key: str) -> float | None:
    """A key of the whole file, else of its images; 0 and less count as not known."""
    value = figure_at(mdoc.entries, key) or common_figure(mdoc.images, key)
    return value if value is not None and value > 0 else None


def binning(mdoc: Mdoc) -> int | None:
    """The camera's binning as a whole number; ``None`` where it is not told, or a half (super-resolution)."""
    value = global_or_common(mdoc, "Binning")
    return int(value) if value is not None and value == int(value) and value <= 64 else None


def total_dose_e_per_a2(images: Iterable[Section]) -> float | None:
    """Sum of ExposureDose over all images; ``None`` when it is missing or 0 for any of them."""
    doses = [section.figure("ExposureDose") for section in images]
    known = [dose for dose in doses if dose is not None and dose > 0]
    return sum(known) if known and len(known) == len(doses) else None


def last_part(path: str) -> str:
    """File name of a SubFramePath, which is a path on the camera's computer (mostly Windows)."""
    return re.split(r"[\\/]", path.strip())[-1]


def image_size(entries: Mapping[str, str]) -> tuple[int, int] | None:
    """``ImageSize = nx ny``."""
    match = _IMAGE_SIZE.match(entries.get("ImageSize", ""))
    return (int(match[1]), int(match[2])) if match else None
