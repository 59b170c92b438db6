"""The dataset of a question: its features as rules see them, and a series to ask a pipeline with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import sqrt

from msgspec.structs import replace

from tiltd.daemon.core.model import CivilTime, Features, FilePrint, Fingerprint, Policy, TiltSeries
from tiltd.daemon.policies import civil_times
from tiltd.policy.schema_test import EVERY_ZONE
from tiltd.policy.trial import at_any_zone

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
USUAL_TILTS = 41
USUAL_AXIS_DEG = 85.0
BYTES_A_PIXEL = 2


def civil_of(when: str) -> CivilTime:
    """``Sat 03:00``, ``sat``, ``03:00``: the time in whatever zone a rule asks for.

    Raises ValueError with a sentence.
    """
    match = re.fullmatch(r"\s*([A-Za-z]{3,9})?\s*(?:([0-9]{1,2})(?::([0-5][0-9]))?)?\s*", when)
    day, hour = (match.group(1), match.group(2)) if match else (None, None)
    weekday = DAYS.index(day[:3].lower()) if day and day[:3].lower() in DAYS else -1
    if match is None or (day and weekday < 0) or (not day and not hour) or (hour and int(hour) > 23):
        raise ValueError(
            f"{when!a} is no time of a week: allowed is a day, an hour or both, as in 'Sat 03:00'"
        )
    return CivilTime(zone=EVERY_ZONE, hour=int(hour) if hour else -1, weekday=weekday, valid_until_at=0.0)


def at_time(features: Features, policy: Policy, when: str, now: float) -> Features:
    """With the civil time as told by ``--at``, or as it is now in each zone that the policy names."""
    if when:
        civil = {EVERY_ZONE: civil_of(when)}
        return at_any_zone(replace(features, civil=civil), policy)
    return replace(features, civil={time.zone: time for time in civil_times(policy, now)})


def series_like(features: Features, *, tilt_axis_deg: float = USUAL_AXIS_DEG) -> TiltSeries:
    """A series of that size; tilts and images as told, else 41 tilts of square images, two bytes a pixel."""
    tilts = features.tilt_count or USUAL_TILTS
    side = max(16, int(sqrt(features.size_bytes / (BYTES_A_PIXEL * tilts))))
    name = features.name or "series"
    file = FilePrint(
        relative_path="series.mrc", size_bytes=features.size_bytes, piece_bytes=65536, head_sha256="0" * 64
    )
    return TiltSeries(
        tilt_series_name=name,
        kind="stack",
        fingerprint=Fingerprint(files=(file,)),
        stack_path=file.relative_path,
        tilt_angles_deg=tuple(round(-60 + 120 * n / max(1, tilts - 1), 3) for n in range(tilts)),
        image_size=features.image_size or (side, side),
        pixel_spacing_angstrom=features.pixel_spacing_angstrom,
        tilt_axis_deg=tilt_axis_deg,
    )


def labels_of(pairs: Iterable[str]) -> Mapping[str, str]:
    """``KEY=VALUE`` words.  Raises ValueError."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{pair!a} is no label: allowed is KEY=VALUE")
        found[key] = value
    return found
