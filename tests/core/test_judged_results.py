"""What the pipeline's judgement of a result leads to: a notice, a hold, what stands in the record."""

from __future__ import annotations

from core.policy_scene import GB, Scene
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Measured, Problem, RunEnd, State

FEW = Problem(code="few_points", detail="only 3 beads were tracked")
WAITS = Problem(code="waits", detail="the result waits in /r/.tiltd-x")


def ended(scene: Scene) -> str:
    scene.complete("TS")
    scene.start("TS")
    attempt = scene.of("TS").attempts[-1]
    end = RunEnd(
        job_id=attempt.job_id,
        nonce="n",
        outcome="success",
        ended_at=scene.now,
        node="n1",
        measured=Measured(run_seconds=1.0),
    )
    scene.step(o.SpoolObserved, attempt_id=attempt.attempt_id, end=end)
    return attempt.attempt_id


def notices(scene: Scene, event: str) -> list[str]:
    found = scene.core.state.notices.values()
    return [notice.summary for notice in found if notice.event == event]


def test_a_doubtful_result_is_delivered_with_a_notice_that_says_why() -> None:
    scene = Scene()
    scene.step(
        o.CollectAnswered,
        attempt_id=ended(scene),
        result_path="/r/TS",
        result_bytes=GB,
        verdict="doubtful",
        quality={"points_accepted": 3.0},
        problems=(FEW,),
    )
    found = scene.of("TS")
    assert (found.state, found.verdict, found.problems) == (State.DELIVERED, "doubtful", (FEW,))
    assert found.quality == {"points_accepted": 3.0}
    (summary,) = notices(scene, "doubtful")
    assert summary.endswith("is delivered, but look at it: only 3 beads were tracked")


def test_a_good_result_is_no_news() -> None:
    scene = Scene()
    attempt_id = ended(scene)
    scene.step(o.CollectAnswered, attempt_id=attempt_id, result_path="/r/TS", result_bytes=GB, verdict="good")
    assert scene.of("TS").problems == () and notices(scene, "doubtful") == []


def test_a_bad_result_is_held_with_the_reason_and_the_place() -> None:
    scene = Scene()
    attempt_id = ended(scene)
    scene.step(o.CollectAnswered, attempt_id=attempt_id, verdict="bad", problems=(FEW, WAITS))
    found = scene.of("TS")
    assert found.state is State.COLLECTING
    assert [(hold.cause, hold.detail) for hold in found.holds] == [
        ("quality", "only 3 beads were tracked; the result waits in /r/.tiltd-x")
    ]
    assert len(notices(scene, "held")) == 1
