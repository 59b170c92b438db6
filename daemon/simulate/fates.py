"""What goes wrong with an attempt, its submission and its result: drawn from its name."""

from __future__ import annotations

from tiltd.daemon.core.model import Attempt, Dataset

from .draws import Draws, on_grid

RUN = (
    "program",
    "memory",
    "environment",
    "input",
    "terminated",
    "silent",
    "scratch_short",
    "input_changed",
    "stranded",
    "vanish",
    "gone",
    "requeue",
    "slow",
    "double",
)
"""``silent``: ended without a word; ``vanish``: gone before it claimed; ``gone``: gone while it ran;
``slow``: never ends by itself; ``double``: two jobs for one attempt, the second claims."""
SUBMIT = ("temporary", "unknown", "temporary", "unknown", "temporary", "unknown", "permanent")
COLLECT = ("occupied", "temporary", "damaged", "bad")


def run_fate(draws: Draws, failures: float, kind: str) -> str:
    if draws[10] >= failures:
        return "success"
    return draws.choose(11, ("success", "terminated", "stranded") if kind == "rescue" else RUN)


def run_seconds(draws: Draws, dataset: Dataset, attempt: Attempt) -> float:
    """About what the 2015 study measured: 250 s for 2.6 GB on 4 cores, most of it not parallel."""
    if attempt.kind == "rescue" or dataset.series is None:
        return 30.0
    seconds = 96.0 * dataset.series.total_bytes / 1e9 * (4 / attempt.placement.cores) ** 0.178
    return on_grid(seconds * (0.75 + 0.5 * draws[12]))


def submit_fate(draws: Draws, failures: float, tries: int) -> str:
    return draws.choose(14, SUBMIT) if draws[13] < failures and tries == 1 else ""


def collect_fate(draws: Draws, failures: float, tries: int) -> str:
    """A result judged bad stays bad; the rest passes."""
    if draws[15] >= failures:
        return ""
    fate = draws.choose(0, COLLECT)
    return fate if tries == 1 or fate == "bad" else ""
