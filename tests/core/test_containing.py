"""A bug of ours stops the dataset it is about, and nothing else of the same look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from core.scene import GB, SITE, Bench, node, sighting
from tiltd.daemon.core import arriving
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import Dataset, Job, JobState, Policy, State
from tiltd.daemon.simulate.scene import SimulatedPipeline


def fails_for(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """``real``, but it raises when its first argument is about the series of this name."""

    def judge(seen: Any, *rest: Any) -> Any:
        if seen.tilt_series_name == name:
            raise RuntimeError("a bug of ours")
        return real(seen, *rest)

    return judge


def by_name(bench: Bench) -> dict[str, Dataset]:
    return {dataset.tilt_series_name: dataset for dataset in bench.core.state.datasets.values()}


def causes(dataset: Dataset) -> list[str]:
    return [hold.cause for hold in dataset.holds]


def test_the_sightings_after_one_that_meets_a_bug_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with monkeypatch.context() as patch:
        patch.setattr(arriving.completeness, "judge", fails_for("B", arriving.completeness.judge))
        seen = tuple(sighting(name) for name in "ABC")
        bench.core.handle(o.FilesObserved(at=0.0, feed="a", up=True, sightings=seen, first=False))
        bench.core.arrivals["a", "C.mrc"].judgement  # noqa: B018 - judged, or it raises
    assert {name: causes(dataset) for name, dataset in by_name(bench).items()} == {
        "A": [],
        "B": ["bug"],
        "C": [],
    }
    (bug,) = bench.core.bugs
    assert "a bug of ours (RuntimeError in fails_for" in bug
    assert bug in by_name(bench)["B"].holds[0].detail


def test_a_baseline_is_whole_though_one_sighting_meets_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    real = bench.core.desk.record

    def record(fact: Any) -> None:
        if getattr(fact, "tilt_series_name", "") == "B":
            raise RuntimeError("a bug of ours")
        real(fact)

    with monkeypatch.context() as patch:
        patch.setattr(bench.core.desk, "record", record)
        seen = tuple(sighting(name) for name in "ABC")
        step = bench.core.handle(o.FilesObserved(at=0.0, feed="a", up=True, sightings=seen, first=True))
    assert [type(fact).__name__ for fact in step.facts].count("DatasetParked") == 2
    assert bench.core.state.feeds_met == {"a": "new feed"}


def test_a_bug_at_one_wake_up_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.see(*(sighting(name) for name in "ABC"))
    with monkeypatch.context() as patch:
        patch.setattr(arriving.completeness, "judge", fails_for("A", arriving.completeness.judge))
        bench.core.handle(o.TimeReached(at=400.0))
    states = {name: dataset.state for name, dataset in by_name(bench).items()}
    assert states["A"] is State.ARRIVING
    assert {states["B"], states["C"]} <= {State.READY, State.RESERVED}
    assert causes(by_name(bench)["A"]) == ["bug"]


def test_who_releases_an_arriving_series_of_a_bug_has_it_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with monkeypatch.context() as patch:
        patch.setattr(arriving.completeness, "judge", fails_for("A", arriving.completeness.judge))
        bench.core.handle(o.FilesObserved(at=0.0, feed="a", up=True, sightings=(sighting("A"),), first=False))
    bench.core.bugs.clear()
    bench.now = 1.0
    assert bench.ask("release", by_name(bench)["A"].dataset_id).ok
    bench.wait(400.0)
    assert by_name(bench)["A"].state is State.RESERVED


def test_a_new_policy_judges_all_but_the_one_that_meets_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.see(*(sighting(name) for name in "ABC"))
    policy = Policy(version="2")
    policy = replace(policy, completeness=replace(policy.completeness, quiet_min_seconds=5.0))
    with monkeypatch.context() as patch:
        patch.setattr(arriving.completeness, "judge", fails_for("A", arriving.completeness.judge))
        bench.core.handle(o.PolicyLoaded(at=10.0, policy=policy, reason="reload"))
    states = {name: dataset.state for name, dataset in by_name(bench).items()}
    assert (states["A"], State.ARRIVING in (states["B"], states["C"])) == (State.ARRIVING, False)


def two_accepted() -> tuple[Bench, list[str]]:
    bench = Bench(node(cores=8))
    bench.see(sighting("A"), sighting("B"))
    bench.wait(301.0)
    attempts = [f"{dataset.dataset_id}.a1" for dataset in by_name(bench).values()]
    bench.wait(1.0)
    for attempt_id in attempts:
        bench.tell(o.SubmitAnswered, attempt_id=attempt_id, job_id=f"job of {attempt_id}")
    return bench, attempts


def broken_for(bench: Bench, attempt_id: str, patch: pytest.MonkeyPatch) -> None:
    real = bench.core.following._progressed

    def progressed(dataset: Dataset, attempt: Any, seen: Any) -> Dataset:
        if attempt.attempt_id == attempt_id:
            raise RuntimeError("a bug of ours")
        return real(dataset, attempt, seen)

    patch.setattr(bench.core.following, "_progressed", progressed)


def test_one_answer_about_all_jobs_is_taken_in_though_one_meets_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    bench, attempts = two_accepted()
    jobs = tuple(
        Job(job_id=f"job of {attempt_id}", job_name="", owner="", state=JobState.RUNNING)
        for attempt_id in attempts
    )
    with monkeypatch.context() as patch:
        broken_for(bench, attempts[0], patch)
        bench.core.handle(o.JobsObserved(at=bench.now, jobs=jobs, complete=True, asked_at=bench.now))
    first, second = (bench.of(attempt_id) for attempt_id in attempts)
    assert (first.state, causes(first)) == (State.QUEUED, ["bug"])
    assert (second.state, causes(second)) == (State.RUNNING, [])


def test_a_bug_about_one_dataset_keeps_no_daemon_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    before, attempts = two_accepted()
    core = Core(SITE, before.core.policy, {"simulated": SimulatedPipeline()}, before.core.state)

    def overdue(*_: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(core.following, "_overdue", overdue)
    core.recover(before.now)
    assert len(core.bugs) == len(attempts)
    assert causes(core.state.datasets[before.of(attempts[0]).dataset_id]) == ["bug"]


def test_a_start_goes_on_past_a_bug_of_any_room(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Bench(node(state="offline"))
    before.see(sighting("A"), sighting("B"))
    before.wait(301.0)
    core = Core(SITE, before.core.policy, {"simulated": SimulatedPipeline()}, before.core.state)
    real = core.placing.consider

    def consider(dataset: Dataset) -> None:
        if dataset.tilt_series_name == "A" and not dataset.holds:
            raise RuntimeError("a bug of ours")
        real(dataset)

    def recount() -> None:
        raise RuntimeError("a bug of the gates")

    monkeypatch.setattr(core.placing, "consider", consider)
    monkeypatch.setattr(core.placing.gates, "recount", recount)
    core.recover(before.now)
    assert len(core.bugs) == 2
    core.handle(o.NodesObserved(at=before.now, nodes=(node(at=before.now, cores=8),)))
    found = {dataset.tilt_series_name: dataset for dataset in core.state.datasets.values()}
    assert (found["A"].state, causes(found["A"])) == (State.READY, ["bug"])
    assert found["B"].state is State.RESERVED


def test_only_the_newest_bugs_are_kept() -> None:
    bench = Bench()
    for number in range(150):
        bench.core.desk.bug(ValueError(f"number {number}"))
    assert len(bench.core.bugs) == 100
    assert bench.core.bugs[-1].startswith("number 149 (ValueError in ?)")


# -- while placing -------------------------------------------------------------------------------------------


def no_decision_for(bench: Bench, name: str, patch: pytest.MonkeyPatch) -> None:
    real = bench.core.placing.deciding.decided

    def decided(dataset: Dataset, *rest: Any) -> Any:
        if dataset.tilt_series_name == name:
            raise RuntimeError("a bug of ours")
        return real(dataset, *rest)

    patch.setattr(bench.core.placing.deciding, "decided", decided)


def quiet(bench: Bench) -> None:
    """So long that what was seen at the start is complete; the nodes' figures are fresh."""
    bench.now = 299.0
    bench.see_nodes()
    bench.core.handle(o.TimeReached(at=301.0))


def test_a_bug_in_placing_one_holds_it_and_the_others_of_the_same_run_are_placed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(node(cores=64))
    bench.see(sighting("A"), sighting("B"), sighting("big", size_bytes=10 * GB))
    with monkeypatch.context() as patch:
        no_decision_for(bench, "A", patch)
        quiet(bench)
        states = {name: dataset.state for name, dataset in by_name(bench).items()}
        assert (states["A"], states["big"]) == (State.READY, State.RESERVED), "another bucket goes on"
        assert causes(by_name(bench)["A"]) == ["bug"] and len(bench.core.bugs) == 1
        bench.core.handle(o.TimeReached(at=302.0))
    assert by_name(bench)["B"].state is State.RESERVED, "its like is placed with the next step"
    assert causes(by_name(bench)["B"]) == []


def test_a_bug_where_a_node_gained_room_leaves_the_room_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(node("n1", cores=4))
    first = bench.running("first")
    bench.see(sighting("A", size_bytes=100_000_000), sighting("small", size_bytes=10_000_000))
    bench.wait(301.0)
    assert {by_name(bench)[name].state for name in ("A", "small")} == {State.READY}
    bench.end(first)
    with monkeypatch.context() as patch:
        no_decision_for(bench, "A", patch)
        bench.core.handle(o.ReleaseAnswered(at=bench.now, attempt_id=first, node="n1"))
    assert causes(by_name(bench)["A"]) == ["bug"]
    assert by_name(bench)["small"].state is State.RESERVED


def test_a_bug_with_one_kind_of_request_stops_that_kind_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is met at every look; each look costs the head of that bucket, never the run."""
    bench = Bench(node("n1", cores=64))
    real = bench.core.placing._choose

    def choose(want: Any) -> Any:
        if want.request.scratch_bytes > 20 * GB:
            raise RuntimeError("a bug of ours")
        return real(want)

    bench.see(sighting("big", size_bytes=10 * GB), sighting("small"))
    with monkeypatch.context() as patch:
        patch.setattr(bench.core.placing, "_choose", choose)
        quiet(bench)
    assert by_name(bench)["small"].state is State.RESERVED
    assert causes(by_name(bench)["big"]) == ["bug"]
    bench.core.bugs.clear()
    bench.now = 302.0
    assert bench.ask("release", by_name(bench)["big"].dataset_id).ok
    assert by_name(bench)["big"].state is State.RESERVED
