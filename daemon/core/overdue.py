"""What does not come in its time: a job beyond its walltime, on a lost node, or one that never starts."""

from __future__ import annotations

from . import facts as f
from .desk import Desk
from .followed import Followed
from .model import Attempt, Dataset, State
from .placing import Placing

DEADLINE_GRACE_SECONDS = 600.0
"""Beyond its walltime a job is ended by its runner, then by the resource manager; then by us."""
LOOK_ELSEWHERE_SECONDS = 60.0


class Overdue:
    """Costs one attempt a look, and all nodes for one that waits too long for its own.  ``since_at``: nothing
    counts from before it, because nobody was looking."""

    def __init__(self, desk: Desk, placing: Placing) -> None:
        self._desk = desk
        self._placing = placing
        self.since_at = 0.0

    def look(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> None:
        """No end is proved.  Far beyond its walltime it is cancelled; on a lost node it is fenced; one that
        does not start on its node goes to another."""
        desk = self._desk
        if attempt.started_at is None or attempt.lost:
            self._unstarted(dataset, attempt)
            return
        # From the start of the daemon at the earliest: the clock may have jumped before it.  The runner, and
        # the resource manager, know the walltime themselves.
        since_at = max(attempt.started_at, self.since_at) + seen.suspended_seconds
        deadline_at = since_at + attempt.placement.walltime_seconds + DEADLINE_GRACE_SECONDS
        if seen.suspended_since_at is not None:
            deadline_at = float("inf")
        lost_at = self._lost_at(attempt, seen)
        if lost_at is not None and desk.now >= lost_at:
            self.stop(dataset, "lost", "its node is out of reach")
        elif desk.now >= deadline_at and dataset.stop_requested is None:
            self.stop(dataset, "deadline", "it is far beyond its walltime")
        else:
            for at in (lost_at, deadline_at):
                if at is not None and desk.now < at < float("inf"):
                    desk.wake(at, "dataset", dataset.dataset_id)

    def _unstarted(self, dataset: Dataset, attempt: Attempt) -> None:
        """A job that waits for the node it is pinned to is withdrawn in time, if another could run it now."""
        desk, after = self._desk, self._desk.policy.placement.move_after_seconds
        if (
            not after
            or dataset.state is not State.QUEUED
            or attempt.kind != "run"
            or attempt.accepted_at is None
            or attempt.placement.mode != "pinned"
            or dataset.stop_requested is not None
            or attempt.lost
        ):
            return
        # Counted anew after a requeue, and from the start of the daemon: it may have started meanwhile.
        since_at = max(attempt.accepted_at, dataset.state_since_at, self.since_at)
        if desk.now < since_at + after:
            desk.wake(since_at + after, "dataset", dataset.dataset_id)
        elif self._placing.elsewhere(dataset, attempt):
            nodes = attempt.placement.nodes
            by = f"it did not start on {', '.join(nodes)}, and another node could run it now"
            self.stop(dataset, "replace", by, excluded_nodes=nodes)
        else:
            desk.wake(desk.now + LOOK_ELSEWHERE_SECONDS, "dataset", dataset.dataset_id)

    def _lost_at(self, attempt: Attempt, seen: Followed) -> float | None:
        """When a running attempt counts as lost: its node down or silent, and no news, for long enough."""
        limit = self._desk.policy.node_lost_after_seconds
        if not attempt.nodes:
            return None
        now, stale_seconds = self._desk.now, self._desk.policy.placement.node_stale_seconds
        heard_at = max(seen.news_at, attempt.started_at or 0.0, self.since_at)
        for name in attempt.nodes:
            node = self._placing.nodes.get(name)
            if node is None:
                continue
            if node.state != "down" and now - node.observed_at < stale_seconds:
                return None
            heard_at = max(heard_at, node.observed_at)
        return heard_at + limit

    def stop(self, dataset: Dataset, intent: str, by: str, excluded_nodes: tuple[str, ...] = ()) -> None:
        if dataset.stop_requested is None or intent == "lost":
            self._desk.record(
                f.StopRequested(
                    at=self._desk.now,
                    dataset_id=dataset.dataset_id,
                    intent=intent,  # type: ignore[arg-type]
                    by=by,
                    excluded_nodes=excluded_nodes,
                )
            )
