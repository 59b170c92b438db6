"""Failures that a further attempt can mend by itself: when the policy lets it, with which options, once."""

from __future__ import annotations

from msgspec.structs import replace

from tiltd.daemon.core.model import Failure, Policy, ResourceRequest, RetryPolicy
from tiltd.policy.retry import GiveUp, RetryAt, after
from tiltd.policy.shape import shape

POLICY = Policy(version="v1")
PATCHES: dict[str, float | str] = {"option.trackingMethod": "1", "option.SizeOfPatchesXandY": "96,96"}
FEW_BEADS = Failure(
    failure_class="input",
    reason="few_beads",
    detail="hardly any bead",
    repair="patch_tracking",
    change=PATCHES,
)


def answer(failure: Failure = FEW_BEADS, spent: int = 1, **more: object) -> RetryAt | GiveUp:
    return after(spent, failure, POLICY, 0.0, nodes=("n1",), **more)  # type: ignore[arg-type]


def test_a_repair_is_tried_even_where_its_class_is_given_up() -> None:
    found = answer()
    assert isinstance(found, RetryAt) and found.change == PATCHES and found.exclude_nodes == ()


def test_a_repair_is_tried_once() -> None:
    assert isinstance(answer(spent=2, changes=PATCHES), GiveUp)
    assert isinstance(answer(spent=2, changes={"option.trackingMethod": "2"}), RetryAt)


def test_a_repair_that_the_policy_does_not_name_is_not_made() -> None:
    rule = RetryPolicy(repair=("rawtlt",))
    assert isinstance(answer(rule=rule), GiveUp)
    lenient = replace(rule, give_up=())
    found = answer(rule=lenient)
    assert isinstance(found, RetryAt) and found.change == {}


def test_a_repair_spends_attempts_like_any_other() -> None:
    assert isinstance(answer(spent=3), GiveUp)


def test_options_without_a_repair_are_no_reason_to_try_again() -> None:
    assert isinstance(answer(replace(FEW_BEADS, repair="")), GiveUp)
    assert isinstance(answer(replace(FEW_BEADS, change={})), GiveUp)


def test_a_disk_that_filled_up_gets_more_and_a_node_that_was_short_does_not() -> None:
    full = Failure(failure_class="scratch", reason="disk_full", detail="no space")
    found = answer(full, changes={"scratch_factor": 1.5})
    assert isinstance(found, RetryAt) and found.change == {"scratch_factor": 2.25}
    short = answer(replace(full, spent=False), spent=0)
    assert isinstance(short, RetryAt) and short.change == {}


def test_more_scratch_is_more_scratch() -> None:
    request = ResourceRequest(cores=1, threads=1, scratch_bytes=1 << 30, walltime_seconds=1.0)
    plain = shape(request, 1, POLICY)
    more = shape(request, 1, POLICY, changes={"scratch_factor": 1.5})
    assert more.scratch_bytes == 1.5 * plain.scratch_bytes
