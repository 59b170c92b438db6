"""Reloads: what is READY is placed anew, what is placed stays, nothing is lost, nothing is half-loaded."""

from __future__ import annotations

import json
import random

import msgspec

from core.policy_scene import GB, KNOWN, Scene, policy
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Policy, State
from tiltd.daemon.core.state import CoreState, Snapshot, replay
from tiltd.policy.policy import load
from tiltd.policy.rules import decide

RELOADS = 400
"""Ten thousand in ``tests/benchmarks/bench_reloads.py``; a few hundred find what they find in a second."""


def test_ready_is_placed_anew_and_what_is_placed_stays() -> None:
    scene = Scene(nodes=1)
    scene.complete("placed")
    scene.complete("ready")
    before = scene.of("placed").attempts
    new = scene.adopt('[[rule]]\nname = "small"\nset = { cores = 1, threads = 1 }\n')
    assert scene.of("placed").attempts == before
    assert scene.state("ready") is State.READY, "the node is still full"
    scene.finish("placed")
    placement = scene.of("ready").attempts[-1].placement
    assert (placement.cores, placement.rule, placement.policy_version) == (1, "small", new.version)


def test_a_refused_policy_changes_nothing_and_is_told_once_for_the_same_content() -> None:
    scene = Scene(nodes=1)
    scene.complete("a")
    scene.complete("b")
    state, policy_before = msgspec.to_builtins(scene.core.state.snapshot(0)), scene.core.policy
    for content in ("aaa", "aaa", "bbb", "aaa"):
        scene.step(o.PolicyRefused, content=content, faults=("x.toml:3: cores: too many", "x.toml:4: y: no"))
    assert scene.core.policy is policy_before
    now = msgspec.to_builtins(scene.core.state.snapshot(0))
    assert {k for k in now if now[k] != state[k]} == {"notices", "refused_policy"}
    told = [fact.notice for fact in scene.facts if isinstance(fact, f.NoticeDue)]
    assert [notice.event for notice in told] == ["policy_refused"] * 3, "aaa, then bbb, then aaa again"
    assert "x.toml:3: cores: too many" in told[0].summary and policy_before.version in told[0].summary
    scene.step(o.PolicyLoaded, policy=policy_before, reason="change")
    assert scene.core.state.refused_policy == "", "the same version again still says that all is well"


def test_a_restart_remembers_what_was_refused_and_told() -> None:
    scene = Scene()
    scene.step(o.PolicyRefused, content="aaa", faults=("x",))
    stored = json.loads(json.dumps(msgspec.to_builtins(scene.core.state.snapshot(0))))
    again = Scene(state=CoreState.restore(msgspec.convert(stored, Snapshot)))
    again.step(o.PolicyRefused, content="aaa", faults=("x",))
    assert not any(isinstance(fact, f.NoticeDue) for fact in again.facts)


def test_a_deadline_of_a_new_policy_counts_from_completeness() -> None:
    scene = Scene(nodes=0)
    scene.complete("TS")
    scene.wait(7200.0)
    scene.adopt('[deadlines]\nwithin = "1h"\n')
    scene.wait(1.0)
    assert scene.of("TS").missed_at is not None


def random_text(rng: random.Random) -> str:
    """A policy that may be anything: about every third one is refused."""
    parts = [
        f"[limits]\nrunning_max = {rng.randrange(5)}\nper_project_max = {rng.randrange(3)}\n",
        f"[shares]\na = {rng.choice([1, 2, 0.5])}\nb = 1\n" if rng.random() < 0.5 else "",
        f'[sharing]\nhalf_life = "{rng.choice(["1h", "1d", "10min"])}"\n',
        f'[deadlines]\nwithin = "{rng.choice(["0s", "2h", "30min"])}"\n',
    ]
    for number in range(rng.randrange(4)):
        when = rng.choice(['project = "a"', 'size = { min = "1GB" }', "attempt = 2", "waiting = { min = 3 }"])
        sets = rng.choice(
            ["cores = 2", "priority = 5", 'hold = "no"', 'pipeline = "q"', "options = { x = 1 }"]
        )
        parts.append(f'[[rule]]\nname = "r{number}"\nwhen = {{ {when} }}\nset = {{ {sets} }}\n')
    text = "".join(parts)
    if rng.random() < 0.33:
        text += rng.choice(
            ["[limits]\n", "x = ", '[[rule]]\nname = "r"\nset = { cores = "many" }\n', "[nonsense]\n"]
        )
    return text


def reloaded(seed: int, reloads: int) -> tuple[Scene, dict[str, Policy], int]:
    """A scene under load with a reload at every turn; the policies that were accepted, and the refused."""
    rng = random.Random(seed)
    scene = Scene(nodes=3)
    known: dict[str, Policy] = {scene.core.policy.version: scene.core.policy}
    refused = number = 0
    for _ in range(reloads):
        text = random_text(rng)
        found = load([("quick.toml", '[completeness]\nquiet_min = "1s"\n'), ("site.toml", text)], known=KNOWN)
        if isinstance(found, Policy):
            known[found.version] = found
            scene.step(o.PolicyLoaded, policy=found, reason="change")
        else:
            refused += 1
            scene.step(o.PolicyRefused, content=str(hash(text)), faults=tuple(map(str, found)))
        if rng.random() < 0.5 and len(scene.core.state.datasets) < 30:
            scene.see(f"TS_{number}", size=rng.choice([1, 5, 9]) * GB, project=rng.choice("ab"))
            number += 1
        scene.wait(rng.choice([1.0, 3.0, 60.0]))
        if rng.random() < 0.4 and (running := scene.running()):
            ended = rng.random() < 0.1
            scene.finish(running[0], 50.0, outcome="failed" if ended else "success", reason="exit")
        if rng.random() < 0.2:
            scene.look_at_nodes()
    return scene, known, refused


def settle(scene: Scene) -> None:
    """A policy that lets everything go; run until nothing is left."""
    scene.adopt()
    for _ in range(500):
        scene.look_at_nodes()
        scene.wait(4000.0)
        scene.look_at_nodes()
        if running := scene.running():
            scene.finish(running[0], 50.0)
        elif not any(
            d.state not in (State.DELIVERED, State.FAILED) for d in scene.core.state.datasets.values()
        ):
            return
    raise AssertionError("something never came to its end")


def judge(scene: Scene, known: dict[str, Policy]) -> int:
    """Every placement is one whole, accepted policy's; every dataset came to an end.  Counts placements."""
    found = {fact.dataset_id for fact in scene.facts if isinstance(fact, f.DatasetFound)}
    ended = {
        fact.dataset_id
        for fact in scene.facts
        if isinstance(fact, f.ResultCollected)
        or (isinstance(fact, f.AttemptFailed) and fact.retry_at is None)
    }
    assert ended == found, "no dataset is lost"
    in_force, placed = next(iter(known)), 0
    for fact in scene.facts:
        if isinstance(fact, f.PolicyAdopted):
            in_force = fact.version
        if isinstance(fact, f.Placed):
            attempt, placed = fact.attempt, placed + 1
            assert attempt.placement.policy_version == in_force
            assert attempt.decided is not None
            decision = decide(attempt.decided.features, known[in_force])
            assert attempt.decided.rules == decision.rules and attempt.placement.rule == decision.rule
            assert attempt.placement.cores == min(decision.cores, 4) and decision.hold == ""
    return placed


def test_reloads_under_load_with_valid_and_invalid_files() -> None:
    scene, known, refused = reloaded(seed=1, reloads=RELOADS)
    settle(scene)
    known[policy().version] = policy()
    assert judge(scene, known) > 50 and refused > RELOADS / 5 and len(known) > RELOADS / 5
    assert replay(scene.facts) == scene.core.state  # type: ignore[arg-type]
    assert sum(1 for _ in scene.core.desk.wakes()) < 200, "wake-ups do not pile up with reloads"
