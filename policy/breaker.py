"""One cause must not eat the queue: the same class of failure on several different series opens a breaker.

A scope is what a failure may be the fault of: ``node:NAME``, ``destination:NAME``, ``feed:NAME`` or
``pipeline:NAME``.  ``COUNTS_FOR`` says which classes of failure speak against which kind of scope.  While a
breaker is open nothing new starts in its scope, except one dataset at a time as a probe, at most every
``probe_seconds``; a success in the scope closes it, whoever had it.

``Breakers`` is part of the state, so it is a value: each function gives a new one, and the fold knows no
policy (the threshold belongs to the decision, :func:`to_open`), so that a replay under another policy
comes to the same state.  Cost grows with the scopes that have marks against them, which a success clears:
a handful in health.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from tiltd.daemon.core.model import BreakerPolicy, Record

COUNTS_FOR: dict[str, frozenset[str]] = {
    "node": frozenset({"node", "environment", "scratch", "killed", "lost"}),
    "destination": frozenset({"destination"}),
    "feed": frozenset({"input", "config"}),
    "pipeline": frozenset({"environment", "program", "licence", "submit"}),
}
"""Kind of scope -> classes of failure that count against it.

"memory", "walltime" and "transient" count against none: they are about one series, and the retry rule has
the remedy.  "submit" (the resource manager refuses the job as such) counts against what made the request.
"""

MANY_NODES = frozenset({"environment"})
"""Against a pipeline these count only when seen on two nodes at least: on one node it is the node's fault,
and a single broken node must not stop the whole pipeline."""

MARKS_MAX = 16
"""Marks kept per scope; ``BreakerPolicy.series`` can be no larger."""


class Mark(Record):
    """One failure that speaks against a scope; one per series and class."""

    failure_class: str
    series: str
    at: float
    node: str = ""


class Breaker(Record):
    """What is held against one scope.  ``looked_at`` is when it opened or was last probed."""

    marks: tuple[Mark, ...] = ()
    opened_at: float | None = None
    failure_class: str = ""
    looked_at: float = 0.0
    probing: str = ""


class Breakers(Record):
    """All scopes that have a mark against them or are open."""

    by_scope: dict[str, Breaker] = {}


# -- the fold -------------------------------------------------------------------------------------------


def failed(
    breakers: Breakers, scopes: Iterable[str], failure_class: str, dataset_id: str, at: float
) -> Breakers:
    """Take in one failed attempt.  Any failure of the dataset that probes a scope ends that probe."""
    scopes = tuple(scopes)
    changed: dict[str, Breaker] = {}
    node = next((scope[5:] for scope in scopes if scope.startswith("node:")), "")
    mark = Mark(failure_class=failure_class, series=_series(dataset_id), at=at, node=node)
    for scope in scopes:
        now = breakers.by_scope.get(scope, Breaker())
        after = _with_mark(now, mark) if counts(scope, failure_class) else now
        if now.probing == dataset_id:
            after = replace(after, probing="", looked_at=at)
        if after is not now:
            changed[scope] = after
    return Breakers(by_scope=breakers.by_scope | changed) if changed else breakers


def succeeded(breakers: Breakers, scopes: Iterable[str]) -> Breakers:
    """Take in a success: nothing is held against these scopes any more, and what was open is closed."""
    cleared = {scope for scope in scopes if scope in breakers.by_scope}
    return _without(breakers, cleared) if cleared else breakers


def opened(breakers: Breakers, scope: str, failure_class: str, at: float) -> Breakers:
    now = breakers.by_scope.get(scope, Breaker())
    after = replace(now, opened_at=at, looked_at=at, failure_class=failure_class, probing="")
    return Breakers(by_scope=breakers.by_scope | {scope: after})


def probed(breakers: Breakers, scope: str, dataset_id: str, at: float) -> Breakers:
    """One dataset was let through.  Without a breaker there (closed meanwhile) nothing changes."""
    now = breakers.by_scope.get(scope)
    if now is None or now.opened_at is None:
        return breakers
    return Breakers(by_scope=breakers.by_scope | {scope: replace(now, probing=dataset_id, looked_at=at)})


def unprobed(breakers: Breakers, dataset_id: str, at: float) -> Breakers:
    """The probing dataset ended without a verdict (cancelled, revoked): another may probe."""
    changed = {
        scope: replace(breaker, probing="", looked_at=at)
        for scope, breaker in breakers.by_scope.items()
        if breaker.probing == dataset_id
    }
    return Breakers(by_scope=breakers.by_scope | changed) if changed else breakers


def closed(breakers: Breakers, scope: str) -> Breakers:
    return _without(breakers, {scope}) if scope in breakers.by_scope else breakers


# -- questions ------------------------------------------------------------------------------------------


def counts(scope: str, failure_class: str) -> bool:
    """Does this class of failure speak against this scope?"""
    return failure_class in COUNTS_FOR.get(scope.partition(":")[0], ())


def to_open(
    breakers: Breakers, scopes: Iterable[str], failure_class: str, policy: BreakerPolicy
) -> list[str]:
    """The scopes that should open now; ask after :func:`failed` took the failure in.

    A scope is named once: what is open already is not named again.
    """
    return [
        scope for scope in scopes if _is_enough(breakers.by_scope.get(scope), scope, failure_class, policy)
    ]


def to_close(breakers: Breakers, scopes: Iterable[str]) -> list[str]:
    """The open scopes that a success closes; ask before :func:`succeeded` takes it in."""
    return [scope for scope in scopes if is_open(breakers, scope)]


def is_open(breakers: Breakers, scope: str) -> bool:
    breaker = breakers.by_scope.get(scope)
    return breaker is not None and breaker.opened_at is not None


def reason(breakers: Breakers, scope: str) -> str:
    """Why it is open, as a sentence's end; "" when it is not."""
    breaker = breakers.by_scope.get(scope)
    if breaker is None or breaker.opened_at is None:
        return ""
    count = len({mark.series for mark in breaker.marks if mark.failure_class == breaker.failure_class})
    probing = f"; {breaker.probing} probes it" if breaker.probing else ""
    return f"{breaker.failure_class} failures of {count} series{probing}"


def blocked_nodes(breakers: Breakers, now: float, policy: BreakerPolicy) -> frozenset[str]:
    """Names of the nodes that nothing may be placed on now."""
    return frozenset(
        scope[5:]
        for scope in breakers.by_scope
        if scope.startswith("node:") and blocks(breakers, scope, now, policy)
    )


def is_known_cause(breakers: Breakers, scopes: Iterable[str], failure_class: str) -> bool:
    """Is a breaker open in one of the scopes for this very class?  Then the failure is the place's and not
    the series': it should spend no attempt."""
    found = (breakers.by_scope.get(scope) for scope in scopes)
    return any(b is not None and b.opened_at is not None and b.failure_class == failure_class for b in found)


def open_scopes(breakers: Breakers) -> tuple[str, ...]:
    return tuple(sorted(scope for scope in breakers.by_scope if is_open(breakers, scope)))


def probe_due(breakers: Breakers, scope: str, now: float, policy: BreakerPolicy) -> bool:
    """May one dataset be let through now?  Only one at a time."""
    due_at = next_probe_at(breakers, scope, policy)
    return due_at is not None and now >= due_at


def next_probe_at(breakers: Breakers, scope: str, policy: BreakerPolicy) -> float | None:
    """When the next probe may start; ``None`` when it is not open, or one is probing already."""
    breaker = breakers.by_scope.get(scope)
    if breaker is None or breaker.opened_at is None or breaker.probing:
        return None
    return breaker.looked_at + policy.probe_seconds


def blocks(breakers: Breakers, scope: str, now: float, policy: BreakerPolicy) -> bool:
    """Must a dataset keep out of this scope?  False also when it may go as the probe: then record that."""
    return is_open(breakers, scope) and not probe_due(breakers, scope, now, policy)


def blocking(breakers: Breakers, scopes: Sequence[str], now: float, policy: BreakerPolicy) -> tuple[str, ...]:
    """Those of the scopes that :func:`blocks` a dataset now; empty costs a look-up a scope."""
    if not breakers.by_scope:
        return ()
    return tuple(scope for scope in scopes if blocks(breakers, scope, now, policy))


# -- inside ---------------------------------------------------------------------------------------------


def _series(dataset_id: str) -> str:
    """Revisions and runs of one series are one witness: ``TS_01-3fa2c1d0.2.1`` -> ``TS_01-3fa2c1d0``."""
    return dataset_id.rsplit(".", 2)[0]


def _with_mark(breaker: Breaker, mark: Mark) -> Breaker:
    same = (mark.failure_class, mark.series)
    others = [m for m in breaker.marks if (m.failure_class, m.series) != same]
    return replace(breaker, marks=(*others, mark)[-MARKS_MAX:])


def _is_enough(breaker: Breaker | None, scope: str, failure_class: str, policy: BreakerPolicy) -> bool:
    if breaker is None or breaker.opened_at is not None or not counts(scope, failure_class):
        return False
    marks = [mark for mark in breaker.marks if mark.failure_class == failure_class]
    if scope.startswith("pipeline:") and failure_class in MANY_NODES and len({m.node for m in marks}) < 2:
        return False
    return len(marks) >= policy.series


def _without(breakers: Breakers, scopes: set[str]) -> Breakers:
    return Breakers(by_scope={scope: b for scope, b in breakers.by_scope.items() if scope not in scopes})
