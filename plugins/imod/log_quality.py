"""Is a tomogram that batchruntomo calls completed any good?  Pure.

It ends with exit status 0 on a series with two gold beads, and on one with none: only the alignment's own
figures tell.  In recorded runs the mean residual was 0.2 px on series with enough beads, 2.9 px with two
beads, 3.8 px with none, and 7.3 px where patches were tracked on noise.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltd.daemon.core.model import Problem, Record, Verdict
from tiltd.plugins.options import Option, Value

OPTIONS = (
    Option(
        name="residual_doubtful_px",
        default=1.0,
        low=0.0,
        high=1000.0,
        meaning="mean residual of the alignment, pixels of the coarsely aligned stack; above: doubtful",
    ),
    Option(
        name="residual_bad_px",
        default=2.5,
        low=0.0,
        high=1000.0,
        meaning="mean residual of the alignment, pixels of the coarsely aligned stack; above: bad",
    ),
    Option(
        name="points_doubtful",
        default=8,
        low=0,
        high=1000,
        meaning="beads to track; fewer: doubtful",
    ),
    Option(
        name="missing_doubtful",
        default=0.25,
        low=0.0,
        high=1.0,
        meaning="share of the beads' places in the views where none was found; above: doubtful",
    ),
    Option(
        name="rotation_doubtful_deg",
        default=2.0,
        low=0.0,
        high=360.0,
        meaning="how far the tilt axis may seem to lie from the one given, degrees; above: doubtful",
    ),
    Option(
        name="views_missing_doubtful",
        default=1,
        low=0,
        high=1000,
        meaning="views of the series that are not in the alignment; more: doubtful",
    ),
)
"""Limits of quality.  Options, so that a rule of the policy can set them (``set.options``)."""


class Limits(Record):
    """The options above, checked."""

    residual_doubtful_px: float = 1.0
    residual_bad_px: float = 2.5
    points_doubtful: int = 8
    missing_doubtful: float = 0.25
    rotation_doubtful_deg: float = 2.0
    views_missing_doubtful: int = 1

    @classmethod
    def of(cls, values: Mapping[str, Value | None]) -> Limits:
        """From all options of the pipeline."""
        return cls(**{name: values[name] for name in cls.__struct_fields__})  # type: ignore[arg-type]


def verdict_on(figures: Mapping[str, float], limits: Limits, view_count: int = 0) -> Verdict:
    """``figures`` are those of :data:`tiltd.plugins.imod.patterns.PATTERNS`, and ``views_aligned`` where it
    is known; ``view_count`` is what the series has, 0 if that is not known."""
    quality = dict(figures)
    residual = figures.get("residual_mean_px")
    if residual is not None and not residual <= limits.residual_bad_px:
        return Verdict(
            verdict="bad", quality=quality, problems=(_residual(residual, limits.residual_bad_px),)
        )
    doubts = [
        problem
        for problem in (
            _no_residual(residual, limits.residual_doubtful_px),
            _few_points(figures, limits.points_doubtful),
            _missing_points(figures, limits.missing_doubtful, view_count),
            _rotation(figures, limits.rotation_doubtful_deg),
            _views(figures, limits.views_missing_doubtful, view_count),
        )
        if problem is not None
    ]
    return Verdict(verdict="doubtful" if doubts else "good", quality=quality, problems=tuple(doubts))


def _residual(residual: float, limit: float) -> Problem:
    detail = f"the alignment fits to {residual:.2f} pixels only (limit {limit:g}): the beads may be none"
    return Problem(code="residual", detail=detail)


def _no_residual(residual: float | None, limit: float) -> Problem | None:
    if residual is None:
        detail = "the log has no residual error: nothing tells how good the alignment is"
        return Problem(code="no_residual", detail=detail)
    return _residual(residual, limit) if residual > limit else None


def _few_points(figures: Mapping[str, float], limit: int) -> Problem | None:
    points = figures.get("points_accepted")
    if points is None or points >= limit:
        return None
    return Problem(code="few_points", detail=f"only {points:.0f} beads were tracked (limit {limit})")


def _missing_points(figures: Mapping[str, float], limit: float, view_count: int) -> Problem | None:
    points, missing = figures.get("points_accepted"), figures.get("points_missing")
    if not points or missing is None or not view_count or missing <= limit * points * view_count:
        return None
    share = missing / (points * view_count)
    detail = f"in {share:.0%} of the places in the views no bead was found (limit {limit:.0%})"
    return Problem(code="points_missing", detail=detail)


def _rotation(figures: Mapping[str, float], limit: float) -> Problem | None:
    seems, given = figures.get("rotation_suggested_deg"), figures.get("rotation_given_deg")
    if seems is None or given is None or abs(seems - given) <= limit:
        return None
    detail = f"the tilt axis seems to lie at {seems:g} degrees, not at {given:g} as given"
    return Problem(code="rotation", detail=detail)


def _views(figures: Mapping[str, float], limit: int, view_count: int) -> Problem | None:
    aligned = figures.get("views_aligned")
    if aligned is None or not view_count or view_count - aligned <= limit:
        return None
    detail = f"{view_count - aligned:.0f} of {view_count} views are not in the alignment (limit {limit})"
    return Problem(code="views_missing", detail=detail)
