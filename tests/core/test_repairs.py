"""A failure that its pipeline can repair: the next attempt runs with other options, and says so."""

from __future__ import annotations

from core.policy_scene import Scene
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import Failure, Outcome, Verdict


def repairing(scene: Scene) -> Scene:
    """Its pipeline knows what to change."""

    def judge(outcome: Outcome) -> Verdict:
        failure = Failure(
            failure_class="input",
            reason="few_beads",
            detail="hardly any bead",
            repair="patch_tracking",
            change={"option.tracking": "patches"},
        )
        return Verdict(verdict="failed", failure=failure)

    scene.pipelines["p"].judge = judge  # type: ignore[method-assign]
    return scene


def retries(scene: Scene, name: str = "TS") -> list[bool]:
    """Fail it; of each failure so far whether it is tried again."""
    scene.finish(name, outcome="failed", reason="exit 1")
    scene.look_at_nodes()
    return [fact.retry_at is not None for fact in scene.facts if isinstance(fact, f.AttemptFailed)]


def test_the_next_attempt_has_the_repairs_options_over_those_of_feed_and_rules() -> None:
    rule = '[[rule]]\nname = "r"\nset = { options = { binning = 2, tracking = "beads" } }'
    scene = repairing(Scene(rule, options={"binning": 4}))
    assert scene.complete("TS").options == {"binning": 2, "tracking": "beads"}
    assert retries(scene) == [True]
    scene.wait(120.0)
    again = scene.of("TS")
    assert len(again.attempts) == 2 and again.options == {"binning": 2, "tracking": "patches"}
    assert again.attempts[0].decided.options == {"binning": 2, "tracking": "beads"}
    assert again.attempts[1].decided.options == {"binning": 2, "tracking": "patches"}


def test_it_is_repaired_once_and_then_given_up() -> None:
    scene = repairing(Scene())
    scene.complete("TS")
    assert retries(scene) == [True]
    scene.wait(120.0)
    assert retries(scene) == [True, False]


def test_a_policy_without_the_repair_gives_up_at_once() -> None:
    scene = repairing(Scene('[retry]\nrepair = ["rawtlt"]'))
    scene.complete("TS")
    assert retries(scene) == [False]


def test_an_operators_option_stands_above_a_repair() -> None:
    scene = repairing(Scene())
    scene.complete("TS")
    assert retries(scene) == [True]
    scene.wait(120.0)
    scene.ask("rerun", "TS", options={"tracking": "beads"})
    rerun = next(d for d in scene.core.state.datasets.values() if d.run == 2)
    assert rerun.options["tracking"] == "beads"
