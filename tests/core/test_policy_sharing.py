"""Whose turn it is: limits, priorities, and fair sharing between projects."""

from __future__ import annotations

from collections import Counter

import pytest

from core.policy_scene import Scene
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Progress, State
from tiltd.daemon.core.usage import Usage, Used


def many(scene: Scene, count: int, **labels: str) -> None:
    for number in range(count):
        scene.complete(f"{labels.get('project', 'TS')}_{number}", **labels)


@pytest.mark.parametrize(
    ("limit", "live"),
    [("running_max = 3", 3), ("per_project_max = 2", 4), ("per_node_max = 1", 4), ("queued_max = 5", 5)],
)
def test_a_limit_is_kept_and_why_names_it(limit: str, live: int) -> None:
    scene = Scene(f"[limits]\n{limit}\n", nodes=4, cores=16)
    many(scene, 6, project="a")
    many(scene, 6, project="b")
    assert len(scene.running()) == live
    waiting = next(d for d in scene.core.state.datasets.values() if d.state is State.READY)
    said = scene.core.blocked_by(waiting.dataset_id)
    assert said is not None
    assert "node_limit" in said.rejected if "node" in limit else limit.split()[0] in said.detail


def test_a_limit_eased_lets_the_next_one_go() -> None:
    scene = Scene("[limits]\nrunning_max = 1\n")
    many(scene, 3)
    scene.finish("TS_0")
    assert scene.running() == ["TS_1"]


def test_only_so_many_wait_in_the_resource_managers_queue() -> None:
    scene = Scene("[limits]\nqueued_max = 2\n")
    many(scene, 6)
    assert len(scene.running()) == 2
    scene.start("TS_0")
    assert len(scene.running()) == 3


def test_only_so_many_stage_in_at_once() -> None:
    scene = Scene("[limits]\nstage_ins_max = 2\n")
    many(scene, 6)
    scene.start("TS_0")
    assert len(scene.running()) == 2
    attempt_id = scene.of("TS_0").attempts[-1].attempt_id
    for phase, live in (("stage_in", 2), ("step", 3)):
        progress = Progress(phase=phase, at=scene.now)
        scene.step(o.SpoolObserved, attempt_id=attempt_id, claimed_by="1", progress=progress)
        assert len(scene.running()) == live


def test_a_node_takes_another_once_the_scratch_of_its_last_is_released() -> None:
    scene = Scene("[limits]\nper_node_max = 1\n", nodes=1, cores=16)
    many(scene, 2)
    assert scene.running() == ["TS_0"]
    scene.finish("TS_0")
    assert scene.running() == ["TS_1"]


def test_limits_are_counted_again_after_a_restart() -> None:
    scene = Scene("[limits]\nrunning_max = 2\n")
    many(scene, 4)
    again = Scene("[limits]\nrunning_max = 2\n", state=scene.core.state)
    assert len(again.running()) == 2


def test_the_higher_priority_goes_first_whatever_its_age() -> None:
    rule = '[[rule]]\nname = "urgent"\nwhen = { project = "urgent" }\nset = { priority = 10 }\n'
    scene = Scene(rule, nodes=1)
    many(scene, 3, project="usual")
    scene.complete("urgent_0", project="urgent")
    scene.finish("usual_0")
    assert scene.running() == ["urgent_0"]


def served(scene: Scene, count: int, seconds: dict[str, float] | None = None) -> Counter[str]:
    """Finish ``count`` series one by one; core seconds by project."""
    used: Counter[str] = Counter()
    for _ in range(count):
        name = scene.running()[0]
        took = (seconds or {}).get(name.split("_")[0], 100.0)
        used[name.split("_")[0]] += int(took)
        scene.finish(name, took)
        scene.look_at_nodes()
    return used


def test_cores_are_shared_by_weight_while_both_have_work() -> None:
    scene = Scene("[shares]\na = 3\nb = 1\n", nodes=1)
    many(scene, 60, project="a")
    many(scene, 60, project="b")
    used = served(scene, 60)
    assert used["a"] / used["b"] == pytest.approx(3, rel=0.15)


def test_shares_are_of_core_seconds_not_of_series() -> None:
    scene = Scene("[shares]\na = 1\nb = 1\n", nodes=1)
    many(scene, 80, project="a")
    many(scene, 80, project="b")
    used = served(scene, 80, {"a": 400.0, "b": 100.0})
    assert used["a"] / used["b"] == pytest.approx(1, rel=0.2), "b runs four times as many"


def test_without_shares_the_oldest_goes_first() -> None:
    scene = Scene(nodes=1)
    many(scene, 10, project="a")
    many(scene, 10, project="b")
    assert served(scene, 10).keys() == {"a"}


def test_what_one_does_not_use_the_other_gets() -> None:
    scene = Scene("[shares]\na = 1\nb = 9\n", nodes=1)
    many(scene, 5, project="a")
    assert served(scene, 5) == {"a": 500}


def test_a_burst_of_one_project_does_not_take_every_node_at_once() -> None:
    """Both wait for nodes; when twelve come up they are shared before anything has ended."""
    scene = Scene("[shares]\na = 1\nb = 1\n", nodes=0)
    many(scene, 20, project="a")
    many(scene, 20, project="b")
    scene.shape = (12, 4)
    scene.look_at_nodes()
    running = Counter(name.split("_")[0] for name in scene.running())
    assert running == {"a": 6, "b": 6}


def test_how_projects_stand_is_told_and_survives_a_restart() -> None:
    text = '[shares]\na = 2\n"b*" = 1\n'
    scene = Scene(text, nodes=1)
    many(scene, 3, project="a")
    many(scene, 2, project="b1")
    scene.finish("a_0", 1000.0)
    scene.look_at_nodes()
    assert scene.running() == ["b1_0"]
    shares = {share.project: share for share in scene.core.shares(scene.now)}
    assert shares["a"].used_core_seconds == pytest.approx(4000, rel=0.1) and shares["a"].weight == 2
    assert shares["a"].named and not shares["b1"].named
    again = Scene(text, nodes=1, state=scene.core.state)
    assert {s.project for s in again.core.shares(again.now)} == {"a", "b1"}


def test_why_names_the_rules_and_the_share() -> None:
    rule = '[[rule]]\nname = "urgent"\nwhen = { project = "a" }\nset = { priority = 10 }\n'
    scene = Scene(rule, "[shares]\na = 2\n", nodes=1)
    many(scene, 2, project="a")
    said = "\n".join(scene.core.why(scene.of("a_1").dataset_id, scene.now))
    assert f"So say policy {scene.core.policy.version} and rules urgent." in said
    assert "Its project has used 0.1 core hours of late, its weight is 2." in said


def test_usage_halves_in_a_half_life_and_never_goes_below_nothing() -> None:
    usage = Usage(half_life_seconds=100.0, by_project={"a": Used(core_seconds=800.0, at=0.0)})
    assert usage.of("a", 100.0) == pytest.approx(400) and usage.of("a", 300.0) == pytest.approx(100)
    assert usage.of("nobody", 5.0) == 0.0
    slower = usage.with_half_life(1000.0, 100.0)
    assert slower.of("a", 1100.0) == pytest.approx(200)


def test_an_aged_series_keeps_its_node_though_others_come_before_and_after_it() -> None:
    """A wide series waits on a node of narrow ones; once aged, no later one may take its room."""
    rule = '[[rule]]\nname = "wide"\nwhen = { name = "wide*" }\nset = { cores = 4 }\n'
    narrow = '[[rule]]\nname = "narrow"\nwhen = { name = "thin*" }\nset = { cores = 2 }\n'
    scene = Scene(rule + narrow, '[placement]\naged = "10min"\n', "[shares]\na = 1\nb = 1\n", nodes=1)
    for number in range(2):
        scene.complete(f"thin_{number}", project="b")
    scene.complete("wide", project="a")
    for number in range(2, 8):
        scene.complete(f"thin_{number}", project="a")
    scene.wait(1200.0)
    scene.look_at_nodes()
    scene.finish("thin_0")
    scene.look_at_nodes()
    assert scene.running() == ["thin_1"], "what came free is kept for the aged one"
    scene.finish("thin_1")
    scene.look_at_nodes()
    assert scene.running() == ["wide"]
