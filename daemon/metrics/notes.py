"""What must be remembered of a live dataset to measure its times."""

from __future__ import annotations

from dataclasses import dataclass

from tiltd.daemon.core.model import TERMINAL, Dataset, Placement, Prediction, State

from .shapes import OTHER, Shape, shape_of


@dataclass(slots=True)
class Note:
    """Instants in epoch seconds; ``ended`` is the terminal state once reached.  A rerun (``run`` > 1) says
    nothing about how long a new tilt series takes."""

    feed: str
    pipeline: str
    run: int = 1
    completed_at: float | None = None
    last_change_at: float = 0.0
    submitted: bool = False
    accepted_at: float | None = None
    ended: State | None = None
    predicted: Prediction | None = None
    placement: Placement | None = None
    shape: Shape = OTHER


def note_of(dataset: Dataset) -> Note:
    """From the record, as after a restart."""
    live = dataset.live_attempt
    last = dataset.attempt
    decided = last.decided if last is not None else None
    return Note(
        feed=dataset.feed,
        pipeline=dataset.pipeline,
        run=dataset.run,
        completed_at=dataset.completed_at,
        last_change_at=dataset.last_change_at,
        submitted=any(attempt.accepted_at is not None for attempt in dataset.attempts),
        accepted_at=live.accepted_at if live and live.started_at is None else None,
        ended=dataset.state if dataset.state in TERMINAL else None,
        predicted=decided.predicted if decided is not None else None,
        placement=last.placement if last is not None else None,
        shape=shape_of(last.placement if last is not None else None),
    )
