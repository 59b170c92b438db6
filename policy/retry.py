"""What follows a failed attempt: again at some instant, perhaps elsewhere or with more, or give up.

Per class of failure the policy says: give up at once (``give_up``), keep off the node it happened on
(``other_node``), ask for more memory (``more_memory``) or more walltime (``more_walltime``), wait for a
person (``hold``), ask for more scratch (``more_scratch``); a class in none of them is tried again as it was.
All but giving up can go together.  A failure that its pipeline can repair by other options of its own is
tried again with them where ``repair`` names the repair, whatever its class, and once.

Attempts are spent against ``attempts_max``, except by ends that are nobody's try (``Failure.spent`` is
false: scratch short on the node, input changed underneath, the breaker's cause): those never make the
dataset fail, they only wait longer each time.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltd.daemon.core.model import Failure, Policy, Record, RetryPolicy

OPTION = "option."
"""A change whose name begins so is an option of the pipeline for the next attempt."""

FACTOR_MAX = 64.0
"""No sequence of failures asks for more than so many times what was asked at first."""


class RetryAt(Record):
    """Place it again, not before ``at``.  ``change`` is merged into ``Dataset.changes`` (it already
    multiplies what stood there), ``exclude_nodes`` is added to ``Dataset.excluded_nodes``.  ``hold`` is why a
    person has to let it go on first; "" where nobody has to."""

    at: float
    change: dict[str, float | str] = {}
    exclude_nodes: tuple[str, ...] = ()
    hold: str = ""


class GiveUp(Record):
    """The dataset FAILED; ``reason`` is a sentence for a person."""

    reason: str


def after(
    attempts_spent: int,
    failure: Failure,
    policy: Policy,
    now: float,
    *,
    nodes: tuple[str, ...] = (),
    changes: Mapping[str, float | str] | None = None,
    attempts_unspent: int = 0,
    rule: RetryPolicy | None = None,
) -> RetryAt | GiveUp:
    """Judge one failed attempt.

    ``attempts_spent`` counts the spent attempts, this one included if its failure was spent.  ``nodes`` are
    those it ran on, ``changes`` what the dataset carries already, ``attempts_unspent`` how many of its
    attempts ended unspent (they only lengthen the wait).  ``rule`` is the dataset's own (``Decision.retry``),
    the policy's if ``None``.  Cost does not depend on anything.
    """
    rule = rule or policy.retry
    mended = _repaired(rule, failure, changes or {})
    if failure.spent and failure.failure_class in rule.give_up and not mended:
        why = f"failures of class {failure.failure_class} are not tried again"
        return GiveUp(reason=_sentence(why, failure))
    if failure.spent and attempts_spent >= rule.attempts_max:
        tries = "1 attempt" if attempts_spent == 1 else f"{attempts_spent} attempts"
        return GiveUp(reason=_sentence(f"{tries} failed, the policy allows {rule.attempts_max}", failure))
    return RetryAt(
        at=now + delay_seconds(rule, attempts_spent if failure.spent else attempts_unspent),
        change={**_change(rule, failure, changes or {}), **mended},
        exclude_nodes=nodes if failure.failure_class in rule.other_node else (),
        hold=_sentence("the policy holds it", failure) if _held(rule, failure) else "",
    )


def _held(rule: RetryPolicy, failure: Failure) -> bool:
    return failure.spent and failure.failure_class in rule.hold


def _repaired(
    rule: RetryPolicy, failure: Failure, changes: Mapping[str, float | str]
) -> dict[str, float | str]:
    """The options of a repair that is allowed and was not tried yet."""
    wanted = {name: value for name, value in failure.change.items() if name.startswith(OPTION)}
    tried = all(changes.get(name) == value for name, value in wanted.items())
    return {} if tried or failure.repair not in rule.repair else wanted


def delay_seconds(rule: RetryPolicy, attempts: int) -> float:
    """The wait before the next attempt: ``delay``, times ``delay_factor`` for each further one, capped."""
    # Bounded before it is raised: a factor of 1e300 must not overflow.
    delay = rule.delay_seconds
    for _ in range(min(attempts, 64) - 1):
        if delay >= rule.delay_seconds_max:
            break
        delay *= rule.delay_factor
    return min(delay, rule.delay_seconds_max)


def factor(changes: Mapping[str, float | str], name: str) -> float:
    """A factor of ``Dataset.changes``, between 1 and ``FACTOR_MAX``; 1 when it is not there."""
    value = changes.get(name, 1.0)
    if isinstance(value, str) or not value >= 1.0:
        return 1.0
    return min(float(value), FACTOR_MAX)


def _change(
    rule: RetryPolicy, failure: Failure, changes: Mapping[str, float | str]
) -> dict[str, float | str]:
    """The pipeline's own remedy, and over it the policy's factors times those already there.  An unspent
    want of scratch is the node's, and no reason to ask for more."""
    change: dict[str, float | str] = {
        name: value for name, value in failure.change.items() if not name.startswith(OPTION)
    }
    for name, classes, times in (
        ("memory_factor", rule.more_memory, rule.memory_factor),
        ("walltime_factor", rule.more_walltime, rule.walltime_factor),
        ("scratch_factor", rule.more_scratch if failure.spent else (), rule.scratch_factor),
    ):
        if failure.failure_class in classes:
            change[name] = min(FACTOR_MAX, factor(changes, name) * max(times, factor(failure.change, name)))
    return change


def _sentence(why: str, failure: Failure) -> str:
    remedy = f"; {failure.remedy}" if failure.remedy else ""
    return f"{why}: {failure.detail or failure.reason}{remedy}"
