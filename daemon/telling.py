"""What happened, told in the log: one important fact is one line, with the dataset's id in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .core import facts as f

Fields = dict[str, Any]


def tell(facts: Sequence[f.Fact], log: Any) -> None:
    """Log what of these facts matters to people.  A baseline is one line, however many series it has."""
    known_before = 0
    for fact in facts:
        if isinstance(fact, f.DatasetFound) and fact.baseline:
            known_before += 1
        elif isinstance(fact, f.FeedMet):
            log.info("feed met", feed=fact.feed, reason=fact.reason, held_for_release=known_before)
        elif type(fact) in LINES:
            level, event, fields_of = LINES[type(fact)]
            about = {"dataset": fact.dataset_id} if isinstance(fact, f.DatasetFact) else {}
            getattr(log, level)(event, **about, **fields_of(fact))


def _found(fact: f.DatasetFound) -> Fields:
    return {"feed": fact.feed, "series": fact.series_key}


def _completed(fact: f.DatasetCompleted) -> Fields:
    series = fact.series
    return {"tilts": series.tilt_count, "bytes": series.total_bytes, "partial": fact.partial}


def _placed(fact: f.Placed) -> Fields:
    placement = fact.attempt.placement
    return {
        "attempt": fact.attempt.number,
        "kind": fact.attempt.kind,
        "nodes": ",".join(placement.nodes),
        "cores": placement.cores,
        "threads": placement.threads,
        "scratch_bytes": placement.scratch_bytes,
    }


def _failed(fact: f.AttemptFailed) -> Fields:
    failure = fact.failure
    return {
        "failure": failure.failure_class,
        "reason": failure.reason,
        "detail": failure.detail,
        "tried_again": fact.retry_at is not None,
    }


def _delivered(fact: f.ResultCollected) -> Fields:
    return {"result": fact.result_path, "bytes": fact.result_bytes, "verdict": fact.verdict}


LINES: dict[type[f.Fact], tuple[str, str, Callable[[Any], Fields]]] = {
    f.DatasetFound: ("info", "found", _found),
    f.DatasetCompleted: ("info", "completed", _completed),
    f.SeriesImported: ("info", "imported", lambda fact: {"path": fact.path}),
    f.SeriesIgnored: (
        "info",
        "ignored",
        lambda fact: {"feed": fact.feed, "series": fact.series_key, "reason": fact.reason},
    ),
    f.Placed: ("info", "placed", _placed),
    f.JobStarted: (
        "info",
        "started",
        lambda fact: {"nodes": ",".join(fact.nodes), "job": fact.job_id},
    ),
    f.JobRequeued: ("warning", "queued again by the resource manager", lambda fact: {}),
    f.AttemptFailed: ("warning", "failed", _failed),
    f.DatasetRejected: (
        "warning",
        "failed",
        lambda fact: {"failure": fact.failure.failure_class, "detail": fact.failure.detail},
    ),
    f.ResultStranded: (
        "warning",
        "stranded",
        lambda fact: {"node": fact.end.node, "path": fact.end.stranded_path, "reason": fact.end.reason},
    ),
    f.ResultCollected: ("info", "delivered", _delivered),
    f.HoldPlaced: (
        "warning",
        "held",
        lambda fact: {"cause": fact.cause, "by": fact.origin, "detail": fact.detail},
    ),
    f.HoldLifted: ("info", "released", lambda fact: {"cause": fact.cause, "by": fact.by}),
    f.StopRequested: ("info", "to stop", lambda fact: {"intent": fact.intent, "by": fact.by}),
    f.AttemptStopped: ("info", "stopped", lambda fact: {"intent": fact.intent}),
    f.DatasetCancelled: ("info", "cancelled", lambda fact: {"reason": fact.reason, "by": fact.by}),
    f.PrioritySet: ("info", "moved in the queue", lambda fact: {"priority": fact.priority, "by": fact.by}),
    f.DatasetRevived: ("info", "retried", lambda fact: {"by": fact.by}),
    f.DatasetAdopted: ("warning", "taken over from the spool", lambda fact: {}),
    f.BreakerOpened: (
        "warning",
        "breaker opened",
        lambda fact: {"scope": fact.scope, "detail": fact.detail},
    ),
    f.BreakerClosed: ("info", "breaker closed", lambda fact: {"scope": fact.scope, "by": fact.by}),
}
"""Fact -> level, event, fields.  What is not here is for the journal alone."""
