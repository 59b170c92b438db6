"""Caps on own work: how many attempts may be live, queued, of one project, on one node, or staging in."""

from __future__ import annotations

from collections import Counter

from .desk import Desk
from .model import WITH_ATTEMPT, Dataset, LimitPolicy, State

STAGING_PHASES = frozenset({"", "claimed", "scratch", "stage_in"})
"""Phases of a runner before its input is on the node's scratch."""
NO_LIMITS = LimitPolicy()
NOT_RUNNING = frozenset({State.RESERVED, State.QUEUED})


class Limits:
    """Counts of live attempts; memory, made again by ``recount``.  A step costs one dataset."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.live: Counter[str] = Counter()
        self.queued: set[str] = set()
        self.staging: set[str] = set()
        self.by_project: Counter[str] = Counter()
        self.by_feed: Counter[str] = Counter()
        self.by_queue: Counter[str] = Counter()

    def began(self, dataset: Dataset) -> None:
        """Its newest attempt is live from now on."""
        attempt = dataset.attempts[-1]
        self.live["all"] += 1
        self.by_project[dataset.project] += 1
        self.by_feed[dataset.feed] += 1
        self.by_queue[attempt.placement.queue] += 1
        if attempt.kind == "run" and dataset.state is not State.COLLECTING:
            self.staging.add(attempt.attempt_id)
        if dataset.state in NOT_RUNNING:
            self.queued.add(attempt.attempt_id)

    def went_on(self, dataset: Dataset) -> bool:
        """Its attempt has another state.  True if any count fell."""
        attempt_id = dataset.attempts[-1].attempt_id
        if dataset.state in NOT_RUNNING:
            self.queued.add(attempt_id)
            return False
        fell = _dropped(self.queued, attempt_id)
        return (dataset.state is State.COLLECTING and _dropped(self.staging, attempt_id)) or fell

    def ended(self, dataset: Dataset) -> None:
        """The attempt of this record, which was live, is over."""
        attempt = dataset.attempts[-1]
        self.live["all"] -= 1
        _less(self.by_project, dataset.project)
        _less(self.by_feed, dataset.feed)
        _less(self.by_queue, attempt.placement.queue)
        self.queued.discard(attempt.attempt_id)
        self.staging.discard(attempt.attempt_id)

    def staged(self, attempt_id: str, phase: str) -> bool:
        """The runner told its phase.  True if its input is on scratch since now."""
        return phase not in STAGING_PHASES and _dropped(self.staging, attempt_id)

    def recount(self) -> None:
        """Count live attempts afresh (after a restart)."""
        self.live.clear()
        self.queued.clear()
        self.staging.clear()
        self.by_project.clear()
        self.by_feed.clear()
        self.by_queue.clear()
        for dataset in self._desk.state.datasets.values():
            if dataset.state in WITH_ATTEMPT:
                self.began(dataset)

    def passed(self, project: str, *, feed: str = "", queue: str = "", stages_in: bool = True) -> str:
        """The limit that the next attempt of this project, feed and queue would pass, in words; "" if there
        is none."""
        limits = self._desk.policy.limits
        if limits == NO_LIMITS:
            return ""
        for name, limit, count, what in (
            ("running_max", limits.running_max, self.live["all"], "attempts are live"),
            ("queued_max", limits.queued_max, len(self.queued), "attempts wait in the queue"),
            (
                "per_project_max",
                limits.per_project_max,
                self.by_project[project] if limits.per_project_max else 0,
                "attempts of its project are live",
            ),
            ("per_feed_max", limits.per_feed_max, self.by_feed[feed], "attempts of its feed are live"),
            ("per_queue_max", limits.per_queue_max, self.by_queue[queue], "attempts are in its queue"),
            (
                "stage_ins_max",
                limits.stage_ins_max if stages_in else 0,
                len(self.staging),
                "attempts copy their input, or are about to",
            ),
        ):
            if limit and count >= limit:
                return f"{count} {what} (limits.{name} is {limit})"
        return ""

    def full_nodes(self) -> dict[str, str]:
        """Nodes that have as many of our attempts as they may; freed when one's scratch is released."""
        most, ledger = self._desk.policy.limits.per_node_max, self._desk.state.ledger
        if not most:
            return {}
        counts: Counter[str] = Counter(node for nodes in ledger.booked.values() for node in nodes)
        return {node: "node_limit" for node, count in counts.items() if count >= most}


def _less(counts: Counter[str], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _dropped(members: set[str], member: str) -> bool:
    if member not in members:
        return False
    members.remove(member)
    return True
