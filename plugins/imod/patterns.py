"""How batchruntomo's output is followed: its steps, what they took, and the figures of quality in it.

Read on IMOD 4.8.2.  A step begins with ``... (running xcorr.com)``, ``(running tilt.com in multiple chunks)``
or ``Running trimvol.com``, and ends with ``Successfully finished xcorr.com   in 00:04.10``, where tenths can
overflow: that is 5 seconds.  The set-up and a step that fails print no time; the runner times those itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tiltd.daemon.core.model import ProgressPattern

_NUMBER = r"-?\d+(?:\.\d+)?"

PATTERNS = (
    ProgressPattern(pattern=r"^Starting data set ", step="setup"),
    ProgressPattern(pattern=r"\(running (?:\S+_fixed\.[a-z]+\.)?(?P<step>[A-Za-z0-9_-]+)\.com\b[^)]*\)"),
    ProgressPattern(pattern=r"^Running (?P<step>[A-Za-z0-9_-]+)\.com$"),
    ProgressPattern(
        pattern=r"^Successfully finished \S+\.com\s+in\s+"
        r"(?P<minutes>\d+):(?P<seconds>\d+)(?:\.(?P<tenths>\d+))?\s*$"
    ),
    ProgressPattern(
        pattern=rf"Residual error mean and sd:\s+(?P<figure_residual_mean_px>{_NUMBER})"
        rf"\s+(?P<figure_residual_sd_px>{_NUMBER})"
    ),
    ProgressPattern(pattern=rf"Residual error weighted mean:\s+(?P<figure_residual_weighted_px>{_NUMBER})"),
    ProgressPattern(pattern=r"total points accepted = (?P<figure_points_accepted>\d+)"),
    ProgressPattern(pattern=r"Total points missing =\s*(?P<figure_points_missing>\d+)"),
    ProgressPattern(
        pattern=rf"SEEMS TO BE CLOSER TO\s+(?P<figure_rotation_suggested_deg>{_NUMBER}) "
        rf"THAN TO THE SPECIFIED ANGLE,\s+(?P<figure_rotation_given_deg>{_NUMBER})"
    ),
)
"""Of the main log.  The last figure counts: alignment and tracking run more than once."""

COMPLETED = r"^Completed dataset "
"""Exit status 0 is no success without it: a usage text and a quit by the check file end with 0 too."""

VALIDATED = r"^Directives all seem OK"

FIGURES = tuple(
    group.removeprefix("figure_")
    for pattern in PATTERNS
    for group in re.compile(pattern.pattern).groupindex
    if group.startswith("figure_")
)


def figures_in(lines: Iterable[str]) -> dict[str, float]:
    """The figures that the runner would find in these lines of a main log.  Cost: lines times patterns."""
    compiled = [re.compile(pattern.pattern) for pattern in PATTERNS]
    figures: dict[str, float] = {}
    for line in lines:
        for pattern in compiled:
            if found := pattern.search(line):
                told = found.groupdict().items()
                figures |= {key.removeprefix("figure_"): float(text) for key, text in told if _is(key, text)}
    return figures


def _is(key: str, text: str | None) -> bool:
    return key.startswith("figure_") and bool(text)
