"""What runs took of what their pipeline had asked corrects what it asks for the next."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from core.policy_scene import GB, Scene
from tiltd.daemon.core.model import Decision, Measured, Policy, ResourcePolicy, ResourceRequest
from tiltd.policy import predict as p
from tiltd.policy.shape import key, round_up_bytes, shape

POLICY = Policy(version="test")
ASKED = ResourceRequest(memory_bytes=1 << 32, scratch_bytes=1 << 35)


def after(count: int, scratch: float, memory: float = 0.0, samples: p.Samples | None = None) -> p.Samples:
    """So many runs that took this share of what was asked."""
    samples = samples or p.Samples()
    measured = Measured(
        run_seconds=100.0,
        peak_memory_bytes=int(memory * ASKED.memory_bytes),
        peak_scratch_bytes=int(scratch * ASKED.scratch_bytes),
    )
    for _ in range(count):
        samples = p.learn(
            samples,
            pipeline="b",
            cores=4,
            threads=4,
            size_bytes=GB,
            measured=measured,
            asked_memory_bytes=ASKED.memory_bytes,
            asked_scratch_bytes=ASKED.scratch_bytes,
        )
    return samples


def correction(samples: p.Samples, least: float = 0.5) -> p.Correction:
    return p.correction(samples, pipeline="b", cores=4, threads=4, least=least)


def test_nothing_is_corrected_without_history_or_for_other_pipelines() -> None:
    assert correction(p.Samples()) == p.Correction()
    assert p.correction(after(30, 0.5), pipeline="c", cores=4, threads=4, least=0.5) == p.Correction()


def test_it_is_lowered_after_sixteen_runs_by_what_was_never_used() -> None:
    assert correction(after(15, 0.7)).scratch == 1.0
    assert correction(after(16, 0.7)).scratch == pytest.approx(0.7 * 1.05, rel=0.1)
    assert correction(after(16, 0.7), least=0.9).scratch == 0.9
    assert correction(after(16, 0.7), least=1.0).scratch == 1.0
    assert correction(after(16, 0.98)).scratch == 1.0


def test_it_is_raised_by_the_first_run_that_needed_more_and_never_without_bound() -> None:
    assert 1.3 * 1.05 <= correction(after(1, 1.3)).scratch <= 1.7
    assert correction(after(40, 1.3)).scratch == pytest.approx(1.3 * 1.05, rel=0.1)
    assert correction(after(5, 50.0)).scratch == p.CORRECTION_MAX


def test_one_hungry_run_keeps_it_from_being_lowered_below_what_that_took() -> None:
    mixed = after(31, 0.5, samples=after(1, 0.9))
    assert correction(mixed).scratch == pytest.approx(0.9 * 1.05)


def test_one_wild_run_among_many_raises_nothing() -> None:
    assert correction(after(31, 0.5, samples=after(1, 20.0))).scratch == 1.0


def test_what_was_not_measured_teaches_nothing() -> None:
    found = correction(after(20, 0.6, memory=0.0))
    assert found.memory == 1.0 and found.scratch < 0.7


def test_the_request_is_shaped_by_it() -> None:
    policy = replace(POLICY, resources=ResourcePolicy(history_min=0.5))
    plain = shape(ASKED, GB, policy, pipeline="b")
    less = shape(ASKED, GB, policy, pipeline="b", samples=after(32, 0.6))
    more = shape(ASKED, GB, policy, pipeline="b", samples=after(30, 1.5, memory=2.0))
    assert less.scratch_bytes < plain.scratch_bytes < more.scratch_bytes
    assert more.memory_bytes > plain.memory_bytes
    assert less.scratch_bytes >= 0.6 * ASKED.scratch_bytes
    assert less.asked_scratch_bytes == plain.asked_scratch_bytes == round_up_bytes(ASKED.scratch_bytes)
    word = Decision(scratch_bytes=GB)
    assert shape(ASKED, GB, policy, decision=word, pipeline="b", samples=after(30, 1.5)).scratch_bytes == (
        round_up_bytes(GB)
    )


def test_what_was_asked_differently_is_not_placed_as_one() -> None:
    """Else a run would be learnt from against what another one had asked."""
    one, other = (shape(replace(ASKED, scratch_bytes=n), GB, POLICY) for n in (1 << 34, 1 << 35))
    same = replace(other, scratch_bytes=one.scratch_bytes)
    assert key(one) != key(same)


def test_a_daemons_own_runs_lower_what_the_next_ones_ask() -> None:
    """The pipeline asks for 2 GB of scratch; its runs take one."""
    scene = Scene("[resources]\nhistory_min = 0.6\n[limits]\nrunning_max = 1\n")
    first = scene.complete("TS_0").attempts[-1].request
    for number in range(17):
        scene.finish(f"TS_{number}")
        scene.look_at_nodes()
        scene.complete(f"TS_{number + 1}")
    last = scene.of("TS_17").attempts[-1].request
    assert first.asked_scratch_bytes == last.asked_scratch_bytes == round_up_bytes(2 * GB)
    assert GB <= last.scratch_bytes <= round_up_bytes(0.6 * 2 * GB) < first.scratch_bytes
