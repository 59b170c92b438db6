"""The rule of completeness, at its edges; all instants are made up, none is read from a clock."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltd.daemon.core.model import (
    CompletenessPolicy,
    FilePrint,
    Fingerprint,
    Problem,
    Sighting,
    TiltSeries,
)
from tiltd.policy.completeness import Complete, NotATiltSeries, Partial, Waiting, judge

POLICY = CompletenessPolicy(min_tilts=5)
T = 1_000_000.0


def series(tilts: int) -> TiltSeries:
    file = FilePrint(relative_path="x.mrc", size_bytes=9, piece_bytes=9, head_sha256="a")
    return TiltSeries(
        tilt_series_name="x",
        kind="stack",
        fingerprint=Fingerprint(files=(file,)),
        tilt_angles_deg=tuple(float(n) for n in range(tilts)),
    )


def sighting(tilts: int = 41, **changes: Any) -> Sighting:
    made = Sighting(
        series_key="x.mrc",
        tilt_series_name="x",
        kind="stack",
        size_bytes=9,
        mtime_ns=1,
        stat_signature="s",
        series=series(tilts),
        section_count=tilts,
    )
    return msgspec.structs.replace(made, **changes)


def problem(code: str) -> Problem:
    return Problem(code=code, detail=f"some {code}")


def test_complete_after_the_quiet_time_and_not_a_second_before() -> None:
    before = judge(sighting(), T, T + 299, POLICY)
    assert isinstance(before, Waiting) and before.why == "quiet" and before.until_at == T + 300
    after = judge(sighting(), T, T + 300, POLICY)
    assert isinstance(after, Complete) and all(line.holds for line in after.evidence)
    assert len(after.evidence) >= 7


def test_judging_at_until_at_is_enough() -> None:
    verdict = judge(sighting(largest_gap_seconds=123.456), T, T + 1.1, POLICY)
    assert isinstance(verdict, Waiting) and verdict.until_at is not None
    assert isinstance(
        judge(sighting(largest_gap_seconds=123.456), T, verdict.until_at + 1e-6, POLICY), Complete
    )


@pytest.mark.parametrize(("gap", "wait"), [(10, 300), (200, 600), (3600, 1200)])
def test_the_gap_term_and_its_cap(gap: float, wait: float) -> None:
    seen = sighting(largest_gap_seconds=gap)
    assert isinstance(judge(seen, T, T + wait - 1, POLICY), Waiting)
    assert isinstance(judge(seen, T, T + wait, POLICY), Complete)


def test_fewer_tilts_than_usual_wait_for_an_hour() -> None:
    assert isinstance(judge(sighting(40), T, T + 3599, POLICY, usual_tilt_count=41), Waiting)
    assert isinstance(judge(sighting(40), T, T + 3600, POLICY, usual_tilt_count=41), Complete)
    assert isinstance(judge(sighting(41), T, T + 300, POLICY, usual_tilt_count=41), Complete)


@pytest.mark.parametrize("sign", ["openTS_gone", "sentinel", "planned_count"])
def test_a_positive_sign_shortens_the_wait(sign: str) -> None:
    seen = sighting(positive_signs=(sign,), largest_gap_seconds=900)
    assert isinstance(judge(seen, T, T + 29, POLICY, usual_tilt_count=61), Waiting)
    assert isinstance(judge(seen, T, T + 30, POLICY, usual_tilt_count=61), Complete)


def test_the_planned_count_is_a_sign_when_reached_and_a_lack_when_not() -> None:
    policy = msgspec.structs.replace(POLICY, planned_tilts=41)
    assert isinstance(judge(sighting(41), T, T + 30, policy), Complete)
    short = judge(sighting(40), T, T + 4000, policy)
    assert isinstance(short, Waiting) and short.why == "fewer_than_planned" and short.until_at == T + 7200
    assert isinstance(judge(sighting(40), T, T + 7200, policy), Partial)
    assert isinstance(judge(sighting(7, planned_tilt_count=7), T, T + 30, policy), Complete)


@pytest.mark.parametrize("blocker", ["openTS", "unsorted", "half1"])
def test_nothing_beside_it_may_say_that_it_is_worked_on(blocker: str) -> None:
    seen = sighting(blockers=(blocker,), positive_signs=("sentinel",))
    verdict = judge(seen, T, T + 7199, POLICY)
    assert isinstance(verdict, Waiting) and verdict.why == blocker
    stale = judge(seen, T, T + 7200, POLICY)
    assert isinstance(stale, Partial) and stale.why == blocker and stale.runnable


@pytest.mark.parametrize(
    "code", ["size_short", "sections_mismatch", "zvalue_gap", "mdoc_half_written", "a_strangers_code"]
)
def test_a_contradiction_is_never_complete_nor_runnable(code: str) -> None:
    seen = sighting(problems=(problem(code),), positive_signs=("sentinel",))
    verdict = judge(seen, T, T + 7199, POLICY)
    assert isinstance(verdict, Waiting) and verdict.why == code
    assert sum(not line.holds for line in verdict.evidence) == 1
    stale = judge(seen, T, T + 7200, POLICY)
    assert isinstance(stale, Partial) and stale.why == code and not stale.runnable


def test_too_few_tilts_are_partial_when_stale() -> None:
    assert isinstance(judge(sighting(4), T, T + 7199, POLICY), Waiting)
    stale = judge(sighting(4), T, T + 7200, POLICY)
    assert isinstance(stale, Partial) and stale.why == "too_few_tilts" and stale.runnable


def test_a_stack_without_mdoc_is_never_complete() -> None:
    seen = sighting(0, series=None, problems=(problem("mdoc_missing"),))
    for seconds in (0, 300, 7199):
        assert isinstance(judge(seen, T, T + seconds, POLICY), Waiting)
    stale = judge(seen, T, T + 1e9, POLICY)
    assert isinstance(stale, Partial) and not stale.runnable


def test_what_was_not_opened_waits_for_that_alone() -> None:
    verdict = judge(sighting(0, series=None), T, T + 1e9, POLICY)
    assert isinstance(verdict, Waiting) and verdict.why == "not_opened" and verdict.until_at is None


def test_a_map_is_no_series_at_once() -> None:
    verdict = judge(sighting(series=None, not_series=problem("montage")), T, T, POLICY)
    assert isinstance(verdict, NotATiltSeries) and verdict.why == "montage" and verdict.evidence


@pytest.mark.parametrize("code", ["few_sections", "flat_angles"])
def test_what_every_series_looks_like_at_its_start_is_judged_when_quiet(code: str) -> None:
    seen = sighting(2, not_series=problem(code), largest_gap_seconds=200)
    verdict = judge(seen, T, T + 599, POLICY)
    assert isinstance(verdict, Waiting) and (verdict.why, verdict.until_at) == (code, T + 600)
    assert isinstance(judge(seen, T, T + 600, POLICY), NotATiltSeries)
    busy = msgspec.structs.replace(seen, blockers=("openTS",))
    assert isinstance(judge(busy, T, T + 600, POLICY), Waiting)


def test_frames_are_judged_like_stacks() -> None:
    seen = sighting(kind="frames", series=None, problems=(problem("frames_missing"),))
    verdict = judge(seen, T, T + 300, POLICY)
    assert isinstance(verdict, Waiting) and verdict.why == "frames_missing"


def test_a_clock_that_goes_back_waits_the_whole_time_anew() -> None:
    verdict = judge(sighting(), T, T - 5000, POLICY)
    assert isinstance(verdict, Waiting) and verdict.until_at == T - 5000 + 300


@given(
    st.integers(0, 90),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.sets(st.sampled_from(["size_short", "zvalue_gap", "x"])),
    st.sets(st.sampled_from(["openTS", "unsorted"])),
    st.sets(st.sampled_from(["sentinel"])),
    st.one_of(st.none(), st.integers(1, 90)),
)
def test_complete_means_that_every_line_holds(
    tilts: int,
    stable: float,
    gap: float,
    codes: set[str],
    blockers: set[str],
    signs: set[str],
    usual: int | None,
) -> None:
    seen = sighting(
        tilts,
        largest_gap_seconds=gap,
        problems=tuple(problem(code) for code in codes),
        blockers=tuple(blockers),
        positive_signs=tuple(signs),
    )
    verdict = judge(seen, T, T + stable, POLICY, usual)
    assert isinstance(verdict, Complete) == all(line.holds for line in verdict.evidence)
    if isinstance(verdict, Complete):
        assert tilts >= 5 and not codes and not blockers and stable >= 30
    if isinstance(verdict, Waiting):
        assert verdict.until_at is not None and verdict.until_at > T + stable - 1e-6
