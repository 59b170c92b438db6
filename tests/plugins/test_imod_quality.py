"""How batchruntomo's log is followed and what its figures are worth."""

from __future__ import annotations

import pytest

from plugins.replaying import RECORDINGS
from tiltd.plugins.imod.log_quality import Limits, verdict_on
from tiltd.plugins.imod.patterns import FIGURES, figures_in

GOOD = {"residual_mean_px": 0.2, "points_accepted": 20.0, "points_missing": 42.0, "views_aligned": 41.0}


def lines_of(case: str) -> list[str]:
    return [line[9:] for line in (RECORDINGS / case / "stdout.timed").read_text().splitlines()]


@pytest.mark.parametrize(
    ("case", "figures"),
    [
        (
            "full_2cpu",
            {"residual_mean_px": 0.205, "residual_sd_px": 0.187, "points_accepted": 20, "points_missing": 42},
        ),
        ("full_big_2cpu", {"residual_mean_px": 0.185, "points_missing": 0}),
        ("e_few_beads", {"residual_mean_px": 2.922, "points_accepted": 10}),
        (
            "e_none_beads",
            {"residual_mean_px": 3.772, "rotation_suggested_deg": 114.0, "rotation_given_deg": 84.0},
        ),
        ("p_patchtrack", {"residual_mean_px": 7.26, "residual_weighted_px": 5.425}),
    ],
)
def test_the_last_figures_of_a_recorded_run(case: str, figures: dict[str, float]) -> None:
    found = figures_in(lines_of(case))
    assert {name: found[name] for name in figures} == figures
    assert set(found) <= set(FIGURES)


def test_a_run_that_did_not_align_has_no_figures() -> None:
    assert figures_in(lines_of("n_email")) == {}


@pytest.mark.parametrize(
    ("changes", "verdict", "code"),
    [
        ({}, "good", ""),
        ({"residual_mean_px": 1.0}, "good", ""),
        ({"residual_mean_px": 1.01}, "doubtful", "residual"),
        ({"residual_mean_px": 2.5}, "doubtful", "residual"),
        ({"residual_mean_px": 2.51}, "bad", "residual"),
        ({"residual_mean_px": float("nan")}, "bad", "residual"),
        ({"residual_mean_px": None}, "doubtful", "no_residual"),
        ({"points_accepted": 7.0}, "doubtful", "few_points"),
        ({"points_missing": 0.26 * 20 * 41}, "doubtful", "points_missing"),
        ({"points_accepted": None, "points_missing": 1e6}, "good", ""),
        ({"views_aligned": 40.0}, "good", ""),
        ({"views_aligned": 39.0}, "doubtful", "views_missing"),
        ({"rotation_suggested_deg": 114.0, "rotation_given_deg": 84.0}, "doubtful", "rotation"),
        ({"rotation_suggested_deg": 85.0, "rotation_given_deg": 84.0}, "good", ""),
    ],
)
def test_what_the_figures_are_worth(changes: dict[str, float | None], verdict: str, code: str) -> None:
    figures = {name: value for name, value in (GOOD | changes).items() if value is not None}
    found = verdict_on(figures, Limits(), view_count=41)
    assert found.verdict == verdict
    assert [problem.code for problem in found.problems] == ([code] if code else [])
    assert all(problem.detail for problem in found.problems)


def test_several_doubts_are_all_told() -> None:
    figures = GOOD | {"residual_mean_px": 1.5, "points_accepted": 3.0, "views_aligned": 20.0}
    codes = [problem.code for problem in verdict_on(figures, Limits(), view_count=41).problems]
    assert codes == ["residual", "few_points", "points_missing", "views_missing"]
