"""What each fact changes in a dataset's record.  Applying is all that a replay does: nothing is decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from . import facts as f
from .model import Attempt, Dataset, Hold, State
from .transitions import next_state

Changes = dict[str, Any]


def apply(dataset: Dataset | None, fact: f.DatasetFact) -> Dataset | None:
    """The record after ``fact``; ``None`` when it leaves the working set.

    Raises ``IllegalTransition`` and changes nothing if the table does not know the pair.  Cost does not
    depend on how many datasets or facts there are.
    """
    state = next_state(dataset, fact)
    if state is None:
        return None
    if dataset is None:
        return _born(fact, state)
    changed = _CHANGES.get(type(fact))
    if changed is None and isinstance(fact, f.DatasetAdopted):
        return replace(fact.record, fact_count=dataset.fact_count + 1, finalized_at=None)
    changes: Changes = changed(dataset, fact) if changed is not None else {}
    changes["fact_count"] = dataset.fact_count + 1
    if state is not dataset.state:
        changes["state"] = state
        changes["state_since_at"] = fact.at
    return replace(dataset, **changes)


def _born(fact: f.DatasetFact, state: State) -> Dataset:
    if not isinstance(fact, f.DatasetFound):
        assert isinstance(fact, f.DatasetAdopted | f.DatasetRecalled)
        return replace(fact.record, fact_count=fact.record.fact_count + 1, finalized_at=None)
    holds: tuple[Hold, ...] = ()
    if fact.baseline:
        detail = "it was in the feed before tiltd watched it; release it to have it run"
        holds = (Hold(cause="before_tiltd", origin="tiltd", detail=detail, since_at=fact.at),)
    return Dataset(
        dataset_id=fact.dataset_id,
        feed=fact.feed,
        series_key=fact.series_key,
        tilt_series_name=fact.tilt_series_name,
        kind=fact.series_kind,
        revision=fact.revision,
        run=fact.run,
        found_at=fact.at,
        state=state,
        state_since_at=fact.at,
        labels=fact.labels,
        pipeline=fact.pipeline,
        options=fact.options,
        operator_options=fact.operator_options,
        holds=holds,
        fact_count=1,
    )


def _amend(dataset: Dataset, attempt_id: str, **changes: Any) -> tuple[Attempt, ...]:
    """The attempts with one of them changed; nearly always the last."""
    attempts = dataset.attempts
    if attempts and attempts[-1].attempt_id == attempt_id:
        changed = replace(attempts[-1], **changes)
        return (changed,) if len(attempts) == 1 else (*attempts[:-1], changed)
    return tuple(
        replace(attempt, **changes) if attempt.attempt_id == attempt_id else attempt for attempt in attempts
    )


def _completed(dataset: Dataset, fact: f.DatasetCompleted) -> Changes:
    return {
        "series": fact.series,
        "evidence": fact.evidence,
        "partial": fact.partial,
        "last_change_at": fact.last_change_at,
        "completed_at": fact.at,
    }


def _hold_placed(dataset: Dataset, fact: f.HoldPlaced) -> Changes:
    others = tuple(hold for hold in dataset.holds if hold.cause != fact.cause)
    new = Hold(cause=fact.cause, origin=fact.origin, detail=fact.detail, since_at=fact.at)
    return {"holds": (*others, new)}


def _hold_lifted(dataset: Dataset, fact: f.HoldLifted) -> Changes:
    changes: Changes = {"holds": tuple(hold for hold in dataset.holds if hold.cause != fact.cause)}
    if fact.cause == "quality":
        changes["accepted_quality"] = True
    hold = dataset.hold("policy") if fact.cause == "policy" and fact.by != "policy" else None
    if hold is not None:
        changes["released_holds"] = (*dataset.released_holds, hold.detail)
    return changes


def _partial_accepted(dataset: Dataset, fact: f.PartialAccepted) -> Changes:
    return {"accepted_partial": True}


def _stop_requested(dataset: Dataset, fact: f.StopRequested) -> Changes:
    """A node out of reach is the attempt's plight: who wanted the dataset withdrawn still wants it."""
    if fact.excluded_nodes:
        excluded = tuple(sorted({*dataset.excluded_nodes, *fact.excluded_nodes}))
        return {"stop_requested": fact.intent, "stop_by": fact.by, "excluded_nodes": excluded}
    if fact.intent == "lost" and dataset.attempts:
        attempts = _amend(dataset, dataset.attempts[-1].attempt_id, lost=True)
        if dataset.stop_requested in ("cancel", "superseded"):
            return {"attempts": attempts}
        return {"attempts": attempts, "stop_requested": fact.intent, "stop_by": fact.by}
    return {"stop_requested": fact.intent, "stop_by": fact.by}


def _imported(dataset: Dataset, fact: f.SeriesImported) -> Changes:
    return {"imported_path": fact.path}


def _placed(dataset: Dataset, fact: f.Placed) -> Changes:
    changes: Changes = {"attempts": (*dataset.attempts, fact.attempt), "retry_not_before_at": 0.0}
    decided = fact.attempt.decided
    if decided is not None:
        changes["destination"] = decided.destination
        if decided.pipeline and decided.pipeline != dataset.pipeline:
            changes["asked_pipeline"] = dataset.asked_pipeline or dataset.pipeline
            changes["pipeline"] = decided.pipeline
        if decided.pipeline and decided.options != dataset.options:
            asked = dataset.asked_options
            changes["asked_options"] = asked if asked is not None else dataset.options
            changes["options"] = decided.options
    return changes


def _priority(dataset: Dataset, fact: f.PrioritySet) -> Changes:
    return {"operator_priority": fact.priority}


def _missed(dataset: Dataset, fact: f.DeadlineMissed) -> Changes:
    return {"missed_at": fact.due_at}


def _accepted(dataset: Dataset, fact: f.JobAccepted) -> Changes:
    """Of two jobs for one attempt, the one that claimed it counts, whatever a late answer names."""
    attempt = dataset.attempts[-1]
    job_id = attempt.job_id if attempt.started_at is not None and attempt.job_id else fact.job_id
    return {"attempts": _amend(dataset, fact.attempt_id, job_id=job_id, accepted_at=fact.at)}


def _started(dataset: Dataset, fact: f.JobStarted) -> Changes:
    job_id = {"job_id": fact.job_id} if fact.job_id else {}
    changes: Changes = {
        "attempts": _amend(dataset, fact.attempt_id, started_at=fact.started_at, nodes=fact.nodes, **job_id)
    }
    if dataset.stop_requested == "replace":
        changes |= {"stop_requested": None, "stop_by": ""}  # it is there after all
    return changes


def _requeued(dataset: Dataset, fact: f.JobRequeued) -> Changes:
    attempt = dataset.attempts[-1]
    ran_on = tuple(dict.fromkeys((*attempt.ran_on, *attempt.nodes)))
    return {"attempts": _amend(dataset, fact.attempt_id, started_at=None, nodes=(), ran_on=ran_on)}


def _ended(dataset: Dataset, fact: f.JobEnded) -> Changes:
    return {"attempts": _amend(dataset, fact.attempt_id, ended_at=fact.at, end=fact.end)}


def _revoked(dataset: Dataset, fact: f.AttemptRevoked) -> Changes:
    return {"attempts": _amend(dataset, fact.attempt_id, revoked=True)}


def _fenced(dataset: Dataset, fact: f.AttemptFenced) -> Changes:
    return {"attempts": _amend(dataset, fact.attempt_id, fenced=True)}


def _failed(dataset: Dataset, fact: f.AttemptFailed) -> Changes:
    changes: Changes = {"failure": fact.failure}
    if fact.end is not None:
        changes["end"] = fact.end
    attempts = _amend(dataset, fact.attempt_id, ended_at=fact.at, **changes)
    return {
        "attempts": attempts,
        "rescue": "" if _nothing_to_rescue(attempts[-1], fact) else dataset.rescue,
        "attempts_spent": dataset.attempts_spent + int(fact.failure.spent),
        "retry_not_before_at": fact.retry_at or 0.0,
        "excluded_nodes": tuple(sorted({*dataset.excluded_nodes, *fact.excluded_nodes})),
        "changes": {**dataset.changes, **fact.changes},
        "failure": fact.failure,
        "stop_requested": None,
        "stop_by": "",
    }


def _nothing_to_rescue(attempt: Attempt, fact: f.AttemptFailed) -> bool:
    """A rescue found nothing, or moved something that was no good: it has to be computed again."""
    moved = attempt.end is not None and attempt.end.outcome == "success"
    return attempt.kind == "rescue" and (moved or fact.failure.reason == "missing result")


def _stopped(dataset: Dataset, fact: f.AttemptStopped) -> Changes:
    return {
        "attempts": _amend(dataset, fact.attempt_id, ended_at=fact.at),
        "cancel_reason": f"{fact.intent} by {dataset.stop_by or 'tiltd'}",
        "stop_requested": None,
        "stop_by": "",
    }


def _stranded(dataset: Dataset, fact: f.ResultStranded) -> Changes:
    return {
        "attempts": _amend(dataset, fact.attempt_id, ended_at=fact.at, end=fact.end),
        "rescue": dataset.rescue or fact.attempt_id,
        "retry_not_before_at": fact.retry_at,
        "stop_requested": None,
        "stop_by": "",
    }


def _collected(dataset: Dataset, fact: f.ResultCollected) -> Changes:
    return {
        "attempts": _amend(dataset, fact.attempt_id, ended_at=fact.at) if fact.adopted else dataset.attempts,
        "result_path": fact.result_path,
        "result_bytes": fact.result_bytes,
        "verdict": fact.verdict,
        "quality": fact.quality,
        "problems": fact.problems,
        "measured": fact.measured,
        "rescue": "",
        "failure": None,
        "holds": (),
        "stop_requested": None,
        "stop_by": "",
    }


def _rejected(dataset: Dataset, fact: f.DatasetRejected) -> Changes:
    return {"failure": fact.failure}


def _cancelled(dataset: Dataset, fact: f.DatasetCancelled) -> Changes:
    return {
        "cancel_reason": f"{fact.reason} ({fact.by})" if fact.by else fact.reason,
        "holds": (),
        "rescue": "",
        "stop_requested": None,
        "stop_by": "",
    }


def _revived(dataset: Dataset, fact: f.DatasetRevived) -> Changes:
    return {
        "attempts_spent": 0,
        "retry_not_before_at": 0.0,
        "excluded_nodes": (),
        "rescue": "",
        "imported_path": "",  # its copy may have been pruned; one that is whole is taken as it is
        "failure": None,
        "cancel_reason": "",
        "holds": (),
        "stop_requested": None,
        "stop_by": "",
    }


_CHANGES: dict[type[f.DatasetFact], Callable[[Dataset, Any], Changes]] = {
    f.DatasetCompleted: _completed,
    f.HoldPlaced: _hold_placed,
    f.HoldLifted: _hold_lifted,
    f.PartialAccepted: _partial_accepted,
    f.PrioritySet: _priority,
    f.DeadlineMissed: _missed,
    f.StopRequested: _stop_requested,
    f.SeriesImported: _imported,
    f.Placed: _placed,
    f.JobAccepted: _accepted,
    f.JobStarted: _started,
    f.JobRequeued: _requeued,
    f.JobEnded: _ended,
    f.AttemptRevoked: _revoked,
    f.AttemptFenced: _fenced,
    f.AttemptFailed: _failed,
    f.AttemptStopped: _stopped,
    f.ResultStranded: _stranded,
    f.ResultCollected: _collected,
    f.DatasetRejected: _rejected,
    f.DatasetCancelled: _cancelled,
    f.DatasetRevived: _revived,
}
