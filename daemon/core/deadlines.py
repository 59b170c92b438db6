"""Deadlines: a result that is due and not there is told once, and held if the policy says so."""

from __future__ import annotations

from .deciding import Deciding, due_at
from .desk import Desk
from .facts import DeadlineMissed
from .model import TERMINAL, Dataset, Decision, State
from .units import show_seconds


class Deadlines:
    """Memory: when each dataset that is on its way is due."""

    def __init__(self, desk: Desk, deciding: Deciding) -> None:
        self._desk = desk
        self._deciding = deciding
        self._awaited: dict[str, float] = {}
        desk.listen(self._over, lambda was, now: was not in TERMINAL and (now is None or now in TERMINAL))

    def _over(self, before: Dataset | None, after: Dataset | None) -> None:
        if before is not None:
            self._awaited.pop(before.dataset_id, None)

    def watch(self, dataset: Dataset, decision: Decision | None = None) -> None:
        """Have it looked at when it is due.  Without a decision: as its last placement recorded."""
        at = due_at(dataset, decision) if decision is not None else _recorded(dataset)
        if dataset.missed_at is not None or self._awaited.get(dataset.dataset_id, 0.0) == at:
            return
        self._awaited[dataset.dataset_id] = at
        if at:
            self._desk.wake(at, "due", dataset.dataset_id)

    def recount(self) -> None:
        """After a restart: attempts under way keep the deadline under which they were placed."""
        for dataset in self._desk.state.datasets.values():
            if dataset.state not in TERMINAL and dataset.state not in (State.ARRIVING, State.READY):
                self.watch(dataset)

    def due(self, dataset_id: str) -> None:
        """The time has come.  A deadline that was put off meanwhile has another wake-up of its own."""
        dataset = self._desk.dataset(dataset_id)
        if dataset is None or dataset.state in TERMINAL or dataset.missed_at is not None:
            return
        if dataset.state is State.READY:
            at = due_at(dataset, self._deciding.decide(dataset))
        else:
            at = _recorded(dataset)
        if not at or at > self._desk.now:
            return
        waited = show_seconds(self._desk.now - (dataset.completed_at or dataset.found_at))
        self._desk.record(DeadlineMissed(at=self._desk.now, dataset_id=dataset_id, due_at=at))
        self._desk.notice(
            "deadline",
            f"{dataset_id} has missed its deadline: it is {dataset.state}, {waited} after it was complete",
            dataset_id,
            dataset,
        )


def _recorded(dataset: Dataset) -> float:
    attempt = dataset.attempt
    return attempt.decided.due_at if attempt is not None and attempt.decided is not None else 0.0
