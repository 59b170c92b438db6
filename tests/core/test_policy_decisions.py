"""What rules decide is what happens: resources, pipeline, options, destination, holds, deadlines, retries."""

from __future__ import annotations

import pytest

from core.policy_scene import AT, GB, Scene, policy
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import CivilTime, State
from tiltd.daemon.core.state import replay

HOLD = '[[rule]]\nname = "wait"\nwhen = { project = "slow" }\nset = { hold = "wait for the grant" }\n'


def test_a_placement_tells_version_rules_inputs_and_predictions() -> None:
    scene = Scene(
        '[[rule]]\nname = "big"\nwhen = { size = { min = "2GB" } }\nset = { cores = 2, queue = "long" }'
    )
    attempt = scene.complete("TS", size=3 * GB, project="covid").attempts[-1]
    placement, decided = attempt.placement, attempt.decided
    assert (placement.cores, placement.queue, placement.rule) == (2, "long", "big")
    assert placement.policy_version == scene.core.policy.version and decided is not None
    assert decided.rules == ("big",) and decided.pipeline == "p"
    assert (decided.features.size_bytes, decided.features.project) == (3 * GB, "covid")
    assert decided.features.tilt_count == 41 and decided.predicted.samples == 0
    assert 0 < decided.predicted.seconds_p50 < decided.predicted.seconds_p99


def test_pipeline_options_and_destination_by_rule_and_the_operators_options_over_them() -> None:
    rule = '[[rule]]\nname = "q"\nwhen = { name = "TS_q*" }\n'
    rule += '[rule.set]\npipeline = "q"\noptions = { binning = 2 }\n'
    scene = Scene(rule + 'destination = "/elsewhere/{series}"\n', options={"binning": 4, "cut": 1})
    plain, chosen = scene.complete("TS_1"), scene.complete("TS_q1")
    assert (plain.pipeline, plain.options, plain.destination) == ("p", {"binning": 4, "cut": 1}, "")
    assert (chosen.pipeline, chosen.options, chosen.destination) == (
        "q",
        {"binning": 2},
        "/elsewhere/{series}",
    )
    assert scene.pipelines["q"].asked[-1] == {"binning": 2}
    assert chosen.asked_pipeline == "p" and chosen.asked_options == {"binning": 4, "cut": 1}
    scene.ask("rerun", "TS_q1", options={"binning": 8})
    rerun = next(d for d in scene.core.state.datasets.values() if d.run == 2)
    assert (rerun.pipeline, rerun.options["binning"]) == ("q", 8)


def test_a_rules_pipeline_that_is_not_installed_holds_until_it_is_not_asked_for() -> None:
    scene = Scene('[[rule]]\nname = "r"\nset = { pipeline = "q" }')
    del scene.core.desk.pipelines["q"]  # type: ignore[attr-defined]
    held = scene.complete("TS").hold("no_pipeline")
    assert held is not None and "rule r" in held.detail
    scene.adopt()
    assert scene.state("TS") is State.RESERVED and not scene.of("TS").holds


def test_a_hold_by_rule_is_lifted_by_the_next_policy_and_only_that_hold() -> None:
    scene = Scene(HOLD)
    assert [h.cause for h in scene.complete("TS", project="slow").holds] == ["policy"]
    hold = scene.of("TS").hold("policy")
    assert hold is not None and hold.detail == "wait for the grant" and hold.origin == "rule wait"
    scene.ask("hold", "TS")
    scene.adopt()
    assert [h.cause for h in scene.of("TS").holds] == ["operator"], "a reload never lifts an operator's hold"
    scene.adopt(HOLD)
    assert {h.cause for h in scene.of("TS").holds} == {"operator", "policy"}
    scene.adopt()
    scene.ask("release", "TS")
    assert scene.state("TS") is State.RESERVED


def test_what_an_operator_released_is_not_held_again_for_the_same_reason() -> None:
    scene = Scene(HOLD)
    scene.complete("TS", project="slow")
    scene.ask("release", "TS")
    assert scene.state("TS") is State.RESERVED
    scene = Scene(HOLD, nodes=0)
    scene.complete("TS", project="slow")
    scene.ask("release", "TS")
    scene.adopt(HOLD, "[limits]\nrunning_max = 9")
    assert not scene.of("TS").holds
    scene.adopt(HOLD.replace("grant", "review"))
    assert scene.of("TS").hold("policy") is not None, "another reason is another hold"


def test_rules_say_when_a_series_counts_as_complete() -> None:
    rule = '[[rule]]\nname = "slow"\nwhen = { microscope = "old" }\n'
    rule += 'set = { completeness = { quiet_min = "1h" } }\n'
    scene = Scene(rule)
    scene.see("TS_new", microscope="krios")
    scene.see("TS_old", microscope="old")
    scene.wait(60.0)
    assert (scene.state("TS_new"), scene.state("TS_old")) == (State.RESERVED, State.ARRIVING)
    scene.adopt()
    scene.wait(1.0)
    assert scene.state("TS_old") is State.RESERVED, "what is arriving is judged anew by a reload"


def berlin(hour: int, valid_until_at: float) -> CivilTime:
    return CivilTime(zone="Europe/Berlin", hour=hour, weekday=2, valid_until_at=valid_until_at)


def test_a_rule_on_hours_is_decided_again_when_the_hour_turns() -> None:
    night = '[[rule]]\nname = "day"\nwhen = { hours = "8-20", zone = "Europe/Berlin" }\n'
    night += 'set = { hold = "by night" }\n'
    scene = Scene()
    scene.adopt(night, civil=[berlin(19, AT + 3600)])
    assert scene.complete("TS").hold("policy") is not None
    scene.step(o.CivilTimeObserved, civil=(berlin(20, AT + 7200),))
    assert scene.state("TS") is State.RESERVED
    decided = scene.of("TS").attempts[-1].decided
    assert decided is not None and decided.features.civil["Europe/Berlin"].hour == 20


def test_an_hour_that_nobody_renews_is_no_longer_believed() -> None:
    night = (
        '[[rule]]\nname = "n"\nwhen = { hours = "20-6", zone = "Europe/Berlin" }\nset = { queue = "night" }'
    )
    scene = Scene(nodes=0)
    scene.adopt(night, civil=[berlin(23, AT + 60)])
    scene.complete("TS")
    (want,) = scene.core.placing.queue.buckets
    assert want.request.queue == "night"
    scene.wait(30 * 60)
    (want,) = scene.core.placing.queue.buckets
    assert want.request.queue == "" and scene.core.placing.deciding.civil == {}


def test_a_rule_on_how_many_wait_holds_for_all_once_so_many_wait() -> None:
    crowd = '[[rule]]\nname = "crowd"\nwhen = { waiting = { min = 5 } }\nset = { cores = 1, threads = 1 }'
    scene = Scene(crowd, nodes=1, cores=4)
    for number in range(8):
        scene.complete(f"TS_{number}")
    scene.wait(30.0)
    cores = {want.request.cores for want in scene.core.placing.queue.buckets}
    assert cores == {1}
    scene.finish("TS_0")
    assert len(scene.running()) == 4, "the node takes four with a core each"


def test_a_deadline_goes_first_and_is_told_once_when_missed() -> None:
    due = '[[rule]]\nname = "due"\nwhen = { project = "due" }\nset = { due = "2h" }\n'
    due += '[deadlines]\nmissed = "hold"\n'
    scene = Scene(due, nodes=1)
    scene.complete("first")
    scene.complete("second")
    scene.complete("hurry", project="due")
    scene.wait(3600.0)
    scene.look_at_nodes()
    scene.finish("first", 60.0)
    assert scene.running() == ["hurry"], "an hour before it is due it overtakes the older one"
    scene = Scene(due, nodes=0)
    scene.complete("late", project="due")
    scene.wait(3 * 3600.0)
    dataset = scene.of("late")
    assert dataset.missed_at is not None and dataset.hold("policy") is not None
    told = [n for n in scene.core.state.notices.values() if n.event == "deadline"]
    assert len(told) == 1 and "missed its deadline" in told[0].summary
    scene.adopt(due)
    assert sum(isinstance(fact, f.DeadlineMissed) for fact in scene.facts) == 1


def test_a_rules_retry_and_a_class_of_failure_that_waits_for_a_person() -> None:
    rule = '[[rule]]\nname = "r"\nwhen = { project = "once" }\nset = { retry = { attempts_max = 1 } }'
    scene = Scene(rule, '[retry]\nhold = ["memory"]\n')
    scene.complete("TS_a", project="once")
    scene.finish("TS_a", outcome="failed", reason="exit")
    ended = [fact for fact in scene.facts if isinstance(fact, f.AttemptFailed)]
    assert ended[-1].retry_at is None, "one attempt only"
    scene.pipelines["p"].failure_class = "memory"
    scene.complete("TS_b")
    scene.finish("TS_b", outcome="failed", reason="oom")
    held = scene.of("TS_b").hold("failure")
    assert held is not None and scene.state("TS_b") is State.READY
    scene.adopt(rule)
    scene.wait(7200.0)
    assert scene.of("TS_b").hold("failure") is not None, "a reload does not lift it"
    scene.look_at_nodes()
    scene.ask("release", "TS_b")
    assert scene.state("TS_b") is State.RESERVED


def test_directives_are_filled_in_and_account_and_priority_come_along() -> None:
    rule = (
        '[[rule]]\nname = "r"\n[rule.set]\naccount = "tomo"\npriority = 7\ndirectives = ["-W x={project}"]\n'
    )
    scene = Scene(rule)
    placement = scene.complete("TS", project="a b$(x)").attempts[-1].placement
    assert (placement.account, placement.priority) == ("tomo", 7)
    assert placement.directives == ("-W x=a_b_x_",)


@pytest.mark.parametrize("text", ["", HOLD])
def test_the_state_is_the_fold_of_its_facts(text: str) -> None:
    scene = Scene(text, "[shares]\na = 2\nb = 1\n", nodes=2)
    for number in range(6):
        scene.complete(f"TS_{number}", project="slow" if number == 3 else "ab"[number % 2])
    scene.finish(scene.running()[0])
    scene.adopt("[sharing]\nhalf_life = '1h'\n[shares]\na = 1\n")
    scene.finish(scene.running()[0], 50.0)
    scene.pipelines["p"].failure_class = "walltime"
    scene.finish(scene.running()[0], 5000.0, outcome="failed", reason="walltime")
    assert replay(scene.facts) == scene.core.state  # type: ignore[arg-type]
    (known,) = scene.core.state.samples.by_class.values()
    assert [sample.cut_off for sample in known.samples] == [False, False, True]


def test_policies_are_the_same_by_value() -> None:
    assert policy(HOLD).version == policy(HOLD + "# a comment\n").version != policy().version


def test_measured_peaks_move_what_is_asked_until_a_series_runs_short() -> None:
    """Every run takes 1 GB of the 2 GB of scratch that its pipeline asks, and all of the memory."""
    scene = Scene('[learning]\nruns_min = 30\n[retry]\ndelay = "1s"\n')
    for number in range(32):
        placed = scene.complete(f"TS_{number}").attempts[-1]
        assert placed.decided is not None
        asked = (placed.decided.asked_memory_bytes, placed.decided.asked_scratch_bytes)
        assert asked == (GB, 2 * GB) and placed.placement.scratch_bytes >= 2 * GB
        scene.finish(f"TS_{number}")
        scene.look_at_nodes()
    first = scene.complete("TS_last").attempts[-1]
    assert GB < first.placement.scratch_bytes < 2 * GB
    assert first.placement.memory_bytes >= GB and first.decided is not None
    assert first.decided.predicted.samples == 32
    scene.pipelines["p"].failure_class = "scratch"
    scene.finish("TS_last", outcome="failed", reason="program")
    scene.wait(5.0)
    again = scene.of("TS_last").attempts[-1]
    assert again.number == 2 and again.placement.scratch_bytes >= 2 * GB
    assert replay(fact for fact in scene.facts) == scene.core.state  # type: ignore[arg-type]
