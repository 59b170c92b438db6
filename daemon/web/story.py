"""Facts in words, for the story of a dataset: one short sentence each, and how it is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import Record
from tiltd.daemon.core.units import show_bytes, show_seconds


class Told(Record):
    """``mark`` is one of good, bad, wait, act (an operator's) or plain."""

    at: float
    what: str
    detail: str = ""
    mark: str = "plain"


def told(fact: f.Fact) -> Told:
    """Also of a kind that has no words here (a test asks for all of them)."""
    what, mark, detail_of = WORDS.get(type(fact), (type(fact).__name__, "plain", lambda x: ""))
    return Told(at=fact.at, what=what, detail=detail_of(fact), mark=mark)


def _completed(fact: f.DatasetCompleted) -> str:
    series = fact.series
    partial = ", partial" if fact.partial else ""
    return f"{series.tilt_count} tilts, {show_bytes(series.total_bytes)}{partial}"


def _placed(fact: f.Placed) -> str:
    attempt, at = fact.attempt, fact.attempt.placement
    return (
        f"attempt {attempt.number} on {', '.join(at.nodes)}: {at.cores} cores, "
        f"{show_bytes(at.memory_bytes)} memory, {show_bytes(at.scratch_bytes)} scratch (rule {at.rule})"
    )


def _failed(fact: f.AttemptFailed) -> str:
    failure = fact.failure
    if fact.retry_at is None:
        then = "not tried again"
    else:
        then = f"tried again in {show_seconds(round(max(0.0, fact.retry_at - fact.at)))}"
    return f"{failure.failure_class}: {failure.reason}. {failure.detail} – {then}"


def _collected(fact: f.ResultCollected) -> str:
    return f"{fact.verdict}, {show_bytes(fact.result_bytes)} in {fact.result_path}"


def _acted(fact: f.OperatorActed) -> str:
    more = [f"reason: {fact.reason}"] if fact.reason else []
    more += [f"options: {', '.join(f'{k}={v}' for k, v in sorted(fact.options.items()))}"] * bool(
        fact.options
    )
    return "; ".join([f"{fact.by} ({fact.via or 'socket'}): {fact.message}", *more])


Words = tuple[str, str, Callable[[Any], str]]
WORDS: dict[type[f.Fact], Words] = {
    f.DatasetFound: ("Found", "plain", lambda x: x.by and f"run {x.run}, asked for by {x.by}"),
    f.DatasetCompleted: ("Complete", "good", _completed),
    f.HoldPlaced: ("Held", "wait", lambda x: f"{x.cause}, by {x.origin}: {x.detail}"),
    f.HoldLifted: ("Released", "plain", lambda x: f"{x.cause}, by {x.by}"),
    f.PartialAccepted: ("Accepted as it is", "act", lambda x: f"by {x.by}"),
    f.PrioritySet: ("Moved in the queue", "act", lambda x: f"priority {x.priority:+d}, by {x.by}"),
    f.DeadlineMissed: ("Overdue", "bad", lambda x: "its result was due and is not there"),
    f.StopRequested: ("To stop", "wait", lambda x: f"{x.intent}, by {x.by}"),
    f.SeriesImported: ("Copied to storage that nodes see", "plain", lambda x: x.path),
    f.Placed: ("Placed", "plain", _placed),
    f.JobAccepted: ("Queued", "plain", lambda x: f"job {x.job_id}"),
    f.JobStarted: ("Started", "plain", lambda x: f"on {', '.join(x.nodes)}"),
    f.JobRequeued: ("Queued again", "wait", lambda x: "by the resource manager"),
    f.JobEnded: ("Computed", "plain", lambda x: f"on {x.end.node}"),
    f.AttemptRevoked: ("Withdrawn", "plain", lambda x: "no runner can claim this attempt any more"),
    f.AttemptFenced: ("Fenced off", "wait", lambda x: "its node is out of reach; it may not publish"),
    f.AttemptFailed: ("Attempt failed", "bad", _failed),
    f.AttemptStopped: ("Stopped", "wait", lambda x: x.intent),
    f.ResultStranded: (
        "Result stranded",
        "wait",
        lambda x: f"computed, but it could not leave {x.end.node}: {x.end.detail}",
    ),
    f.ResultCollected: ("Delivered", "good", _collected),
    f.DatasetRejected: ("Rejected", "bad", lambda x: x.failure.detail),
    f.DatasetCancelled: ("Cancelled", "wait", lambda x: f"{x.reason}{f', by {x.by}' if x.by else ''}"),
    f.DatasetRevived: ("To be tried again", "act", lambda x: f"by {x.by}"),
    f.DatasetAdopted: ("Taken over from its job file", "plain", lambda x: ""),
    f.DatasetFinalized: ("Finished", "plain", lambda x: "nothing is left to do"),
    f.DatasetParked: ("Set aside", "plain", lambda x: "until somebody releases it"),
    f.DatasetRecalled: ("Taken up again", "act", lambda x: f"by {x.by}"),
    f.OperatorActed: ("Asked by an operator", "act", _acted),
}
"""Every fact about a dataset, and the audit's."""
