"""The one source of effects: what the recorded state still asks to be done.

Pure, and level-triggered: after a restart the same state asks for the same effects, and each of them can
be done twice.  ``outstanding(replay(journal)) == outstanding(live)`` is an invariant that the simulations
check at every step.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import effects as e
from .model import LOG, TERMINAL, Attempt, Dataset, State
from .site import FeedInfo
from .state import CoreState

SENT_AT_ONCE = 4
LIVE = frozenset({State.RESERVED, State.QUEUED, State.RUNNING})
WORKING_HOLDS = frozenset({"destination", "quality", "operator", "bug"})
"""Causes that also stop the publishing of a result that is already there."""


def outstanding_of(
    dataset: Dataset, booked: Mapping[str, tuple[str, ...]], feeds: Mapping[str, FeedInfo]
) -> list[e.Effect]:
    """What one dataset asks for.  ``booked`` gives the nodes where an attempt still holds scratch.

    Costs the dataset's own attempts.
    """
    state = dataset.state
    wanted: list[e.Effect] = []
    if state in LIVE:
        wanted = _of_live(dataset)
    elif state is State.READY:
        feed = feeds.get(dataset.feed)
        if feed is not None and feed.imports and not dataset.imported_path and not dataset.holds:
            wanted.append(e.ImportSeries(dataset_id=dataset.dataset_id))
    elif state is State.COLLECTING and not (dataset.holds and _stops_publishing(dataset)):
        wanted.append(_for(e.CollectResult, dataset, dataset.attempts[-1]))
    for attempt in dataset.attempts:
        if attempt.ended_at is not None and attempt.attempt_id in booked:
            wanted += _releases(dataset, attempt, booked[attempt.attempt_id])
    return wanted


def _stops_publishing(dataset: Dataset) -> bool:
    return any(hold.cause in WORKING_HOLDS for hold in dataset.holds)


def _of_live(dataset: Dataset) -> list[e.Effect]:
    attempt = dataset.attempts[-1]
    if attempt.ended_at is not None:
        return []
    if attempt.lost:
        return [] if attempt.fenced else [_for(e.FenceAttempt, dataset, attempt)]
    if dataset.stop_requested is None:
        return [_for(e.SubmitJob, dataset, attempt)] if dataset.state is State.RESERVED else []
    wanted: list[e.Effect] = []
    if attempt.started_at is None and not attempt.revoked:
        wanted.append(_for(e.RevokeAttempt, dataset, attempt))
    elif attempt.job_id:
        wanted.append(
            e.CancelJob(attempt_id=attempt.attempt_id, dataset_id=dataset.dataset_id, job_id=attempt.job_id)
        )
    return wanted


def _releases(dataset: Dataset, attempt: Attempt, nodes: tuple[str, ...]) -> list[e.Effect]:
    """Scratch is given back once its attempt is over, except where a result still waits to be rescued.

    A fenced attempt's node is out of reach: its reservation stays until the node is seen again.
    """
    if attempt.attempt_id == dataset.rescue and dataset.state not in TERMINAL:
        return []
    return [
        e.ReleaseScratch(attempt_id=attempt.attempt_id, dataset_id=dataset.dataset_id, node=node)
        for node in nodes
    ]


def _for(
    kind: type[e.SubmitJob] | type[e.RevokeAttempt] | type[e.FenceAttempt] | type[e.CollectResult],
    dataset: Dataset,
    attempt: Attempt,
) -> e.Effect:
    return kind(attempt_id=attempt.attempt_id, dataset_id=dataset.dataset_id)


def notices_to_send(state: CoreState) -> list[e.Effect]:
    """Of each destination the oldest few, so that one which cannot be reached is not asked a hundred times.

    Costs the notices that are due, which ``noticing.py`` bounds for each destination.
    """
    found: list[e.Effect] = []
    counts: dict[str, int] = {}
    for notice_id, notice in state.notices.items():
        for to in notice.to:
            counts[to] = counts.get(to, 0) + 1
            if to == LOG or counts[to] <= SENT_AT_ONCE:
                found.append(e.SendNotice(notice_id=notice_id, to=to))
    return found


def outstanding(state: CoreState, feeds: Mapping[str, FeedInfo]) -> frozenset[e.Effect]:
    """What the whole state asks for; for restarts, tests and ``/readyz``.  Costs all live datasets."""
    wanted: set[e.Effect] = {*notices_to_send(state)}
    for dataset in state.datasets.values():
        wanted.update(outstanding_of(dataset, state.ledger.booked, feeds))
    return frozenset(wanted)
