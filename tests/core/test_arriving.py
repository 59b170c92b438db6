"""From the first sight of a series until it is complete; and what becomes of one whose files change."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from core.scene import SITE, Bench, sighting
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import Dataset, Policy, Problem, State, TiltSeries
from tiltd.daemon.simulate.scene import SimulatedPipeline
from tiltd.policy.completeness import Waiting

KEY = ("a", "TS.mrc")
MONTAGE = Problem(code="montage", detail="it is a map of the grid")
FEW = Problem(code="few_sections", detail="it has 2 images")


def policy(**completeness: Any) -> Policy:
    known = Policy(version="test")
    return replace(known, completeness=replace(known.completeness, **completeness))


def tilts(name: str, count: int, content: str = "1") -> Any:
    """A sighting of a series with so many tilts."""
    seen = sighting(name, content, labels={"project": "p", "session": "s"})
    assert seen.series is not None
    series = replace(seen.series, tilt_angles_deg=tuple(float(n) for n in range(count)))
    return replace(seen, series=series, section_count=count)


def series_of(content: str) -> TiltSeries:
    series = sighting("TS", content).series
    assert series is not None
    return series


def digest(content: str) -> str:
    return series_of(content).fingerprint.digest


def only(bench: Bench) -> Dataset:
    (dataset,) = bench.core.state.datasets.values()
    return dataset


def causes(dataset: Dataset) -> list[str]:
    return [hold.cause for hold in dataset.holds]


def waiting(bench: Bench) -> Waiting:
    judgement = bench.core.arrivals[KEY].judgement
    assert isinstance(judgement, Waiting)
    return judgement


def restarted(bench: Bench) -> Bench:
    """The same state in a new daemon, which remembers no arrival."""
    after = Bench(*bench.nodes, policy=bench.core.policy)
    after.core = Core(SITE, bench.core.policy, {"simulated": SimulatedPipeline()}, bench.core.state)
    after.now = bench.now
    after.core.recover(bench.now)
    after.see_nodes()
    return after


# -- the baseline ------------------------------------------------------------------------------------------


def test_what_was_there_before_tiltd_is_parked_and_not_remembered() -> None:
    bench = Bench()
    step = bench.see(sighting("TS"), first=True)
    assert [type(fact) for fact in step.facts] == [f.DatasetFound, f.DatasetParked, f.FeedMet]
    assert (bench.core.state.datasets, bench.core.arrivals) == ({}, {})
    (record,) = step.records
    assert (record.finalized_at, causes(record), record.state) == (
        bench.now,
        ["before_tiltd"],
        State.ARRIVING,
    )


def test_a_feed_met_first_with_a_reason_says_it() -> None:
    step = Bench().tell(o.FilesObserved, feed="a", up=True, first=True, first_reason="the journal is new")
    (met,) = step.facts
    assert isinstance(met, f.FeedMet)
    assert met.reason == "the journal is new"


def test_a_parked_series_that_is_released_is_judged_like_any_other() -> None:
    bench = Bench()
    (parked,) = bench.see(sighting("TS"), first=True).records
    assert bench.ask("release", parked.dataset_id, record=parked).ok
    assert bench.core.watchlist("a") == {"TS.mrc": parked.dataset_id}
    bench.see(sighting("TS"))
    bench.wait(301.0)
    assert only(bench).state is State.RESERVED


def test_a_parked_series_that_is_recalled_to_be_held_waits_for_its_release() -> None:
    bench = Bench()
    (parked,) = bench.see(sighting("TS"), first=True).records
    bench.ask("hold", parked.dataset_id, record=parked)
    bench.see(sighting("TS", "2"))
    bench.wait(8000.0)
    assert only(bench).state is State.ARRIVING
    assert causes(only(bench)) == ["before_tiltd", "operator"]


# -- growing, and quiet ------------------------------------------------------------------------------------


def test_every_change_begins_the_quiet_time_afresh_and_is_no_fact() -> None:
    bench = Bench()
    bench.see(sighting("TS", "0"))
    found = len(bench.facts)
    for number in range(1, 6):
        bench.wait(200.0)
        bench.see(sighting("TS", str(number)))
    assert len(bench.facts) == found
    bench.wait(299.0)
    assert only(bench).state is State.ARRIVING
    assert waiting(bench).why == "quiet"
    bench.wait(2.0)
    assert only(bench).state is State.RESERVED
    assert only(bench).last_change_at == 1000.0


def test_the_same_sighting_again_does_not_begin_the_quiet_time_afresh() -> None:
    bench = Bench()
    bench.see(sighting("TS"))
    bench.wait(200.0)
    bench.see(sighting("TS"))
    bench.wait(101.0)
    assert only(bench).state is State.RESERVED


def test_what_was_not_opened_yet_waits_for_a_change_alone() -> None:
    bench = Bench()
    bench.see(sighting("TS", series=None))
    assert waiting(bench).why == "not_opened"
    bench.wait(100_000.0)
    assert only(bench).state is State.ARRIVING


def test_the_feed_is_nothing_while_it_is_down() -> None:
    bench = Bench()
    bench.see(sighting("TS"))
    step = bench.tell(o.FilesObserved, feed="a", up=False, gone=("TS.mrc",), detail="no such folder")
    assert step.facts == ()
    assert bench.core.arrivals[KEY].gone_since_at is None
    assert bench.core.arriving.feeds_up["a"] == (False, "no such folder")


def test_a_feed_that_is_not_configured_any_more_is_not_taken_in() -> None:
    bench = Bench()
    assert bench.see(sighting("TS"), feed="c").facts == ()
    assert bench.core.state.datasets == {}


def test_a_series_short_for_its_session_waits_longer() -> None:
    bench = Bench()
    for name in ("TS_1", "TS_2"):
        bench.see(tilts(name, 41))
        bench.wait(301.0)
    bench.see(tilts("TS", 20))
    bench.wait(3500.0)
    assert waiting(bench).evidence[-1].detail.endswith("(20 tilts, 41 are usual in this session)")
    bench.wait(200.0)
    assert KEY not in bench.core.arrivals or bench.core.arrivals[KEY].judgement is not None
    named = {dataset.tilt_series_name: dataset for dataset in bench.core.state.datasets.values()}
    assert named["TS"].completed_at == pytest.approx(602.0 + 3600.0)


def test_a_partial_series_does_not_count_for_what_is_usual() -> None:
    bench = Bench(policy=policy(partial="run", planned_tilts=41, stale_seconds=400.0))
    for name in ("TS_1", "TS_2"):
        bench.see(tilts(name, 7))
        bench.wait(500.0)
    assert all(dataset.partial for dataset in bench.core.state.datasets.values())
    assert bench.core.state.usual_tilt_count("a", {"project": "p", "session": "s"}) is None


# -- no series ---------------------------------------------------------------------------------------------


def ignored(step: Step) -> list[tuple[str, str]]:
    return [(fact.reason, fact.stat_signature) for fact in step.facts if isinstance(fact, f.SeriesIgnored)]


def test_what_is_surely_no_series_is_ignored_at_once_and_forgotten() -> None:
    bench = Bench()
    step = bench.see(sighting("TS", series=None, not_series=MONTAGE))
    assert ignored(step) == [("montage", "1")]
    assert (bench.core.arrivals, bench.core.state.datasets) == ({}, {})
    assert bench.core.arriving.ignored == {"a": {"montage": 1}}


def test_what_only_began_looks_like_no_series_and_is_given_the_quiet_time() -> None:
    bench = Bench()
    assert ignored(bench.see(sighting("TS", series=None, not_series=FEW))) == []
    bench.wait(200.0)
    bench.see(sighting("TS", "2", series=None, not_series=FEW))
    bench.wait(299.0)
    assert "SeriesIgnored" not in bench.kinds()
    bench.wait(2.0)
    assert bench.kinds().count("SeriesIgnored") == 1
    assert bench.core.arrivals == {}


def test_what_only_began_and_grows_on_is_a_series_after_all() -> None:
    bench = Bench()
    bench.see(sighting("TS", "0", series=None, not_series=FEW))
    bench.wait(100.0)
    bench.see(sighting("TS"))
    bench.wait(301.0)
    assert only(bench).state is State.RESERVED
    assert "SeriesIgnored" not in bench.kinds()


def test_an_arriving_series_that_turns_out_to_be_none_is_cancelled_with_the_reason() -> None:
    bench = Bench()
    bench.see(sighting("TS", "0", series=None))
    step = bench.see(sighting("TS", not_series=MONTAGE))
    (record,) = step.records
    assert (record.state, record.finalized_at) == (State.CANCELLED, bench.now)
    assert record.cancel_reason == "it is no tilt series: it is a map of the grid (tiltd)"
    assert ignored(step) == [("montage", "1")]


# -- a finished series that is touched ---------------------------------------------------------------------


def test_a_finished_series_with_the_same_content_is_only_signed_afresh() -> None:
    bench = Bench()
    step = bench.see(sighting("TS", stat_signature="s9", known_revision=1, known_digest=digest("1")))
    assert [(type(fact), fact.stat_signature) for fact in step.facts] == [(f.InputUnchanged, "s9")]  # type: ignore[attr-defined]
    assert bench.core.arrivals == {}


def test_a_finished_series_with_new_content_is_its_next_revision() -> None:
    bench = Bench()
    bench.see(sighting("TS", "2", known_revision=3, known_digest=digest("1")))
    assert (only(bench).revision, only(bench).run) == (4, 1)


def test_a_finished_series_that_was_not_opened_yet_makes_nothing() -> None:
    bench = Bench()
    step = bench.see(sighting("TS", "2", series=None, known_revision=1, known_digest=digest("1")))
    assert step.facts == ()


def test_a_finished_series_leaves_no_arrival_behind() -> None:
    bench = Bench()
    dataset_id = bench.arrive()
    assert KEY in bench.core.arrivals
    bench.tell(o.SubmitAnswered, attempt_id=f"{dataset_id}.a1", result_path="/results/TS")
    assert bench.core.arrivals == {}
