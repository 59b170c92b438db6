"""What a reviewer tried on the core, each once a bug."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from shell.review_core import Scene, sighting
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import State


def test_a_restart_does_not_take_a_long_run_for_lost_before_it_knows_the_nodes() -> None:
    before = Scene()
    dataset = before.running()
    after = Scene(state=before.core.state, at=before.now + 2000.0)
    assert after.dataset().stop_requested is None
    after.nodes()
    after.wait(1500.0)
    assert dataset.attempts[-1].started_at is not None
    assert after.dataset().stop_requested is None


def test_a_cancel_of_a_job_beyond_its_deadline_is_no_crash() -> None:
    scene = Scene()
    dataset = scene.running()
    scene.ask("cancel", dataset)
    for _ in range(30):
        scene.wait(600.0)
        scene.nodes()
    scene.step(o.SpoolObserved, attempt_id=dataset.attempts[-1].attempt_id, claimed_by="7")
    assert scene.dataset().stop_requested == "cancel"


def test_frames_are_held_until_a_pipeline_takes_them() -> None:
    scene = Scene()
    dataset = scene.complete(kind="frames")
    assert (dataset.state, [hold.cause for hold in dataset.holds]) == (State.READY, ["no_pipeline"])
    assert scene.ask("rerun", dataset, latest_run=1).ok
    rerun = scene.core.state.datasets[dataset.dataset_id[:-1] + "2"]
    assert (rerun.state, [hold.cause for hold in rerun.holds]) == (State.READY, ["no_pipeline"])


def test_a_pipeline_that_raises_stops_its_dataset_and_nothing_else() -> None:
    scene = Scene(bug="request")
    scene.nodes()
    dataset = scene.complete()
    assert [hold.cause for hold in dataset.holds] == ["bug"]
    assert "pipeline p" in dataset.holds[0].detail


def test_a_pipeline_that_cannot_judge_costs_its_attempt_only() -> None:
    scene = Scene(bug="judge")
    scene.ended(scene.running(), outcome="failed", reason="exit", exit_status=1)
    failure = scene.dataset().failure
    assert failure is not None
    assert "ZeroDivisionError" in failure.detail


def test_what_vanished_while_the_daemon_was_down_is_held_as_gone() -> None:
    before = Scene()
    before.see(sighting(series=None))
    after = Scene(state=before.core.state, at=before.now + 10.0)
    after.see(gone=["TS"])
    after.wait(200.0)
    assert [hold.cause for hold in after.dataset().holds] == ["input_gone"]
    after.see(sighting())
    assert not after.dataset().holds


def test_an_old_revision_tried_again_makes_no_second_dataset_of_the_newer_one() -> None:
    scene = Scene()
    first = scene.complete()
    scene.see(sighting(content="2"))
    second = f"{first.dataset_id[:-3]}2.1"
    assert set(scene.core.state.datasets) == {second}
    scene.core.handle(
        o.OperatorAsked(at=scene.now, action="cancel", dataset_id=second, by="op", request_id="1")
    )
    assert not scene.core.state.datasets
    # The first is tried again although the journal knows a second revision, which is finished.
    assert scene.ask("retry", first, record=replace(first, state=State.CANCELLED)).ok
    newer = sighting(content="2").series
    assert newer is not None
    known = {"known_revision": 2, "known_digest": newer.fingerprint.digest}
    scene.see(sighting(content="2", **known))
    assert not scene.core.state.datasets


def test_looks_asked_for_twice_are_kept_once() -> None:
    scene = Scene()
    dataset = scene.running()
    waiting = len(list(scene.core.desk.wakes()))
    for _ in range(50):
        scene.step(o.SpoolObserved, attempt_id=dataset.attempts[-1].attempt_id, claimed_by="7")
    assert len(list(scene.core.desk.wakes())) <= waiting + 1


def test_a_bug_in_the_core_is_told_and_the_next_observation_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    def fail(*_: object) -> None:
        raise KeyError("somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(scene.core.placing, "observe", fail)
        scene.nodes()
    assert len(scene.core.bugs) == 1
    assert "in test_a_bug" in scene.core.bugs[0]
    scene.nodes()
    assert "n" in scene.core.nodes


def test_what_an_action_would_be_refused_for_is_known_beforehand() -> None:
    scene = Scene()
    dataset = scene.complete()
    objection = scene.core.operating.objection
    assert not objection("hold", dataset, {})
    assert "delivered: nothing to hold" in objection("hold", replace(dataset, state=State.DELIVERED), {})
    assert "only failed" in objection("retry", dataset, {})
    assert "no such option" in objection("rerun", dataset, {"nosuch": 1})
    assert not scene.ask("rerun", dataset, options={"nosuch": 1}, latest_run=1).ok
    assert list(scene.core.state.datasets) == [dataset.dataset_id]


def test_a_stranded_result_keeps_its_scratch_and_nothing_else() -> None:
    """With its cores it would keep its own rescue, and everybody else, from a node that it fills."""
    scene = Scene()
    dataset = scene.running()
    scene.nodes(cores=1)
    scene.ended(dataset, outcome="stranded", reason="Permission denied", stranded_path="/scratch/x")
    (booked,) = scene.core.state.ledger.of("n").values()
    assert (booked.cores, booked.memory_bytes, booked.reserved_bytes > 0) == (0, 0, True)
    scene.nodes(cores=1)
    scene.wait(120.0)
    scene.nodes(cores=1)
    attempt = scene.dataset().attempts[-1]
    assert (attempt.kind, attempt.placement.nodes) == ("rescue", ("n",))


def test_a_stranded_result_outlives_a_change_of_its_input() -> None:
    scene = Scene()
    dataset = scene.running()
    scene.ended(dataset, outcome="stranded", reason="Permission denied", stranded_path="/scratch/x")
    scene.see(gone=["TS"])
    assert not scene.dataset().holds
    scene.see(sighting(content="2"))
    assert scene.core.state.datasets[dataset.dataset_id].rescue
    assert len(scene.core.state.datasets) == 2


def test_a_breaker_that_was_open_at_the_start_frees_its_queue_when_it_is_closed() -> None:
    before, scope = Scene(), "destination:f"
    before.complete()
    opened = f.BreakerOpened(at=before.now, scope=scope, failure_class="destination", detail="full")
    before.core.desk.record(opened)
    after = Scene(state=before.core.state, at=before.now)
    after.nodes()
    blocked = after.core.blocked_by(after.dataset().dataset_id)
    assert blocked is not None
    assert f"release --breaker {scope}" in blocked.detail
    after.step(o.OperatorAsked, action="close_breaker", dataset_id="", by="op", request_id="1", reason=scope)
    assert after.dataset().state is State.RESERVED


def test_why_says_what_is_asked_for_and_of_a_held_one_only_the_hold() -> None:
    scene = Scene()
    dataset = scene.complete()
    lines = scene.core.why(dataset.dataset_id, scene.now)
    assert any("asks for" in line and "of scratch" in line for line in lines)
    scene.ask("hold", dataset)
    lines = scene.core.why(dataset.dataset_id, scene.now)
    assert any("held (operator" in line for line in lines)
    assert not any("waits for a place" in line for line in lines)


def test_who_cancels_an_arriving_series_is_told_that_it_comes_back_if_it_grows() -> None:
    scene = Scene()
    scene.see(sighting(series=None))
    assert "new revision; 'hold'" in scene.ask("cancel", scene.dataset()).message
    scene.see(sighting("TS_2"))
    scene.wait(4000.0)
    assert scene.ask("cancel", scene.dataset("TS_2")).message.endswith("is cancelled")


def test_an_import_that_found_its_files_changed_is_tried_again_if_they_are_as_recorded() -> None:
    scene = Scene(imports=True)
    dataset = scene.complete()
    scene.step(o.ImportAnswered, dataset_id=dataset.dataset_id, input_changed=True, trouble="changed")
    assert scene.dataset().hold("input_changing") is not None
    scene.wait(90.0)
    assert scene.dataset().hold("input_changing") is None
