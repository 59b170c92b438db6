"""Is this tilt series complete?  Pure: ``judge`` takes all it needs and answers with its evidence.

The rule is that of the acquisition notes.  Complete needs all of: it is a tilt series; header, size and
mdoc agree to the byte and without a gap; enough tilts; nothing beside it says that the acquisition program
still works on it; and nothing has changed, by the daemon's own clock, for

    max(quiet_min, min(gap_factor x largest recent gap in the mdoc, gap_max))

seconds, or ``short_series_wait`` if that is longer and the series has fewer tilts than its session's usual
number (a nitrogen refill takes 45 minutes).  A positive sign of the end shortens the wait to
``positive_sign``.  What stays short or contradictory for ``stale`` seconds is ``Partial``.

"Size stable for a minute" would be wrong: SerialEM writes a dose-symmetric series again in tilt order after
its last image, and PACEtomo leaves every stack alone for minutes between two tilts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from msgspec.structs import replace

from tiltd.daemon.core.model import CompletenessPolicy, Evidence, Record, SeriesKind, Sighting

__all__ = ["Complete", "Judgement", "NotATiltSeries", "Partial", "Waiting", "judge"]

PROVISIONAL = frozenset({"few_sections", "flat_angles"})
"""Reasons for being no tilt series that every tilt series gives while it starts."""

_CONTENT: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "stack and mdoc are there",
        frozenset({"stack_missing", "mdoc_missing", "unreadable"}),
    ),
    (
        "header is sane",
        frozenset(
            {
                "header_truncated",
                "header_empty",
                "header_garbage",
                "header_swapped",
                "mode_unknown",
                "image_size_mismatch",
            }
        ),
    ),
    ("size matches the header to the byte", frozenset({"size_short", "size_long"})),
    (
        "mdoc is whole and has one section an image",
        frozenset(
            {
                "mdoc_half_written",
                "mdoc_noise",
                "mdoc_too_large",
                "sections_mismatch",
                "angle_missing",
                "zvalue_gap",
                "zvalue_twice",
                "zvalue_unreadable",
            }
        ),
    ),
    ("all frames are there", frozenset({"frames_missing", "frames_unnamed", "frames_empty"})),
)


class Complete(Record):
    """Nothing speaks against it any more."""

    evidence: tuple[Evidence, ...]


class Waiting(Record):
    """Not yet: ``why`` can be counted.  ``until_at`` is when to judge again if nothing changes; ``None``
    when only a change of its files can help."""

    why: str
    until_at: float | None
    evidence: tuple[Evidence, ...]


class Partial(Record):
    """Short or contradictory, and stale for long: the policy's ``partial`` (run, hold, drop) decides.

    Only what is ``runnable`` (readable, and free of contradictions) can be run; the rest can be held or
    dropped, whatever the policy says.
    """

    why: str
    runnable: bool
    evidence: tuple[Evidence, ...]


class NotATiltSeries(Record):
    """A map, a reference, a few images: never to be run."""

    why: str
    detail: str
    evidence: tuple[Evidence, ...]


Judgement = Complete | Waiting | Partial | NotATiltSeries


def judge(
    sighting: Sighting,
    stable_since_at: float,
    now: float,
    policy: CompletenessPolicy,
    usual_tilt_count: int | None = None,
) -> Judgement:
    """Judge one series by what was last seen of it.

    ``stable_since_at`` is when its files were last seen to differ from before (``stat_signature`` or
    fingerprint), by the daemon's clock; ``usual_tilt_count`` is the usual number of its session, ``None`` if
    unknown.  Costs the same for every series.
    """
    if sighting.not_series is not None and sighting.not_series.code not in PROVISIONAL:
        return _not_a_series(sighting, ())
    if sighting.series is None and not sighting.problems and sighting.not_series is None:
        return _not_opened(sighting)
    stable_since_at = min(stable_since_at, now)
    tilts = sighting.series.tilt_count if sighting.series is not None else sighting.section_count
    planned = sighting.planned_tilt_count or policy.planned_tilts
    wait_seconds, wait_reason = _wait(sighting, policy, tilts, planned, usual_tilt_count)
    # The very sum that is given as ``until_at``: a wake-up at that instant must find it quiet.
    quiet_at = stable_since_at + wait_seconds
    quiet = _quiet(now >= quiet_at, round(now - stable_since_at), round(wait_seconds), wait_reason)
    if sighting.not_series is not None:
        if quiet.holds and not sighting.blockers:
            return _not_a_series(sighting, (quiet,))
        against = (_line("is a tilt series", sighting.not_series.detail, holds=False), quiet)
        waiting = _unless_stale(sighting, against, sighting.not_series.code, stable_since_at, now, policy)
        if isinstance(waiting, Waiting) and not sighting.blockers:
            return replace(waiting, until_at=min(waiting.until_at or quiet_at, quiet_at))
        return waiting
    lines, failing = _checks(sighting, policy, tilts, planned)
    evidence = (*lines, quiet)
    if failing:
        return _unless_stale(sighting, evidence, failing, stable_since_at, now, policy)
    if not quiet.holds:
        return Waiting(why="quiet", until_at=quiet_at, evidence=evidence)
    return Complete(evidence=evidence)


def _not_a_series(sighting: Sighting, quiet: tuple[Evidence, ...]) -> NotATiltSeries:
    assert sighting.not_series is not None
    problem = sighting.not_series
    evidence = (_line("is a tilt series", problem.detail, holds=False), *quiet)
    return NotATiltSeries(why=problem.code, detail=problem.detail, evidence=evidence)


def _not_opened(sighting: Sighting) -> Waiting:
    """Only stat-ed so far: that it is to be opened is known when its files change no more."""
    if not sighting.blockers:
        return _GROWING
    return replace(_GROWING, evidence=(_NOT_OPENED, _no_blockers(sighting)[1]))


def _unless_stale(
    sighting: Sighting,
    evidence: tuple[Evidence, ...],
    why: str,
    stable_since_at: float,
    now: float,
    policy: CompletenessPolicy,
) -> Waiting | Partial | NotATiltSeries:
    stale_at = stable_since_at + policy.stale_seconds
    if now < stale_at:
        return Waiting(why=why, until_at=stale_at, evidence=evidence)
    if sighting.not_series is not None:
        return NotATiltSeries(why=why, detail=sighting.not_series.detail, evidence=evidence)
    return Partial(why=why, runnable=sighting.series is not None and not sighting.problems, evidence=evidence)


def _wait(
    sighting: Sighting,
    policy: CompletenessPolicy,
    tilts: int,
    planned: int | None,
    usual_tilt_count: int | None,
) -> tuple[float, str]:
    """Seconds without a change that will do, and why so many."""
    signs = sighting.positive_signs
    if planned is not None and tilts >= planned and "planned_count" not in signs:
        signs = (*signs, "planned_count")
    gap_seconds = min(policy.gap_factor * sighting.largest_gap_seconds, policy.gap_max_seconds)
    wait_seconds, reason = policy.quiet_min_seconds, "the policy's least"
    if gap_seconds > wait_seconds:
        wait_seconds = gap_seconds
        reason = f"by the largest recent gap of {sighting.largest_gap_seconds:.0f} s"
    if usual_tilt_count is not None and tilts < usual_tilt_count:
        if policy.short_series_wait_seconds > wait_seconds:
            wait_seconds = policy.short_series_wait_seconds
        reason = f"{tilts} tilts, {usual_tilt_count} are usual in this session"
    if signs and policy.positive_sign_seconds < wait_seconds:
        return policy.positive_sign_seconds, f"shortened by {', '.join(signs)}"
    return wait_seconds, reason


Checks = tuple[tuple[Evidence, ...], str]
"""The lines of all checks but the last, in the order to be fixed, and the countable code of the first that
fails (empty: none does)."""


def _checks(sighting: Sighting, policy: CompletenessPolicy, tilts: int, planned: int | None) -> Checks:
    read = sighting.series is not None
    if not sighting.problems and not sighting.blockers:
        return _nothing_against(sighting.kind, read, tilts, policy.min_tilts, planned)
    content = _content_checks(sighting) if sighting.problems else _ALL_WELL[sighting.kind, read]
    return _in_order(content, _no_blockers(sighting), tilts, policy.min_tilts, planned)


def _in_order(
    content: Iterable[tuple[str, Evidence]],
    blockers: tuple[str, Evidence],
    tilts: int,
    least: int,
    planned: int | None,
) -> Checks:
    counted = _line("is a tilt series", f"{tilts} tilts")
    line = _line("enough tilts", f"{tilts}, at least {least}", holds=tilts >= least)
    lines = [("not_series", counted), *content, blockers, ("too_few_tilts", line)]
    if planned is not None:
        line = _line("planned number of tilts", f"{tilts} of {planned}", holds=tilts >= planned)
        lines.append(("fewer_than_planned", line))
    failing = next((code for code, line in lines if not line.holds), "")
    return tuple([line for _, line in lines]), failing


def _content_checks(sighting: Sighting) -> Iterable[tuple[str, Evidence]]:
    lines = []
    left = list(sighting.problems)
    for check, codes in _CONTENT:
        against = [problem for problem in left if problem.code in codes]
        left = [problem for problem in left if problem.code not in codes]
        if check == "all frames are there" and sighting.kind == "stack":
            continue
        if against:
            detail = "; ".join(problem.detail for problem in against)
            lines.append((against[0].code, _line(check, detail, holds=False)))
        elif sighting.series is not None:
            lines.append(("", _line(check, "yes")))
    lines += [(problem.code, _line("no contradiction", problem.detail, holds=False)) for problem in left]
    return lines


def _no_blockers(sighting: Sighting) -> tuple[str, Evidence]:
    if not sighting.blockers:
        return _NO_BLOCKERS
    names = ", ".join(sighting.blockers)
    return sighting.blockers[0], _line(_AT_WORK, f"beside it: {names}", holds=False)


def _line(check: str, detail: str, *, holds: bool = True) -> Evidence:
    return Evidence(check=check, holds=holds, detail=detail)


# What many series share word for word is made once.


@lru_cache(maxsize=256)
def _nothing_against(kind: SeriesKind, read: bool, tilts: int, least: int, planned: int | None) -> Checks:
    return _in_order(_ALL_WELL[kind, read], _NO_BLOCKERS, tilts, least, planned)


@lru_cache(maxsize=256)
def _quiet(holds: bool, seconds: int, wait_seconds: int, reason: str) -> Evidence:
    detail = f"for {seconds} s of {wait_seconds} s ({reason})"
    return _line("unchanged long enough", detail, holds=holds)


_AT_WORK = "acquisition is not at work on it"
_NO_BLOCKERS = ("", _line(_AT_WORK, "no .openTS, -unsorted or -half1 beside it"))
_NOT_OPENED = _line("files were opened", "only stat-ed while they grow", holds=False)
_GROWING = Waiting(why="not_opened", until_at=None, evidence=(_NOT_OPENED, _NO_BLOCKERS[1]))
_ALL_WELL = {
    (kind, read): tuple(
        ("", _line(check, "yes"))
        for check, _ in _CONTENT
        if read and (kind == "frames" or check != "all frames are there")
    )
    for kind in ("stack", "frames")
    for read in (False, True)
}
