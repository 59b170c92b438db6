"""Metrics that are read from the core at the moment of a scrape: gauges of what is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tiltd.daemon.core.bookings import leaked_bytes
from tiltd.daemon.core.digests import Board
from tiltd.daemon.core.ledger import Ledger
from tiltd.daemon.core.model import CHANNELS, Dataset, NodeInfo, State, Unplaceable, channel_of
from tiltd.daemon.core.sharing import Share
from tiltd.plugins.api import CommandCount
from tiltd.policy.breaker import Breakers, open_scopes

from .labels import BoundedLabels
from .table import METRICS


class StateView(Protocol):
    @property
    def datasets(self) -> Mapping[str, Dataset]: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def breakers(self) -> Breakers: ...
    @property
    def current(self) -> Mapping[tuple[str, str], str]: ...
    @property
    def board(self) -> Board: ...


class CoreView(Protocol):
    """What a scrape reads of :class:`tiltd.daemon.core.core.Core`; nothing here is changed."""

    @property
    def state(self) -> StateView: ...
    @property
    def nodes(self) -> Mapping[str, NodeInfo]: ...
    @property
    def arrivals(self) -> Mapping[tuple[str, str], Any]: ...
    @property
    def jobs_forgotten(self) -> int: ...
    @property
    def foreign_counts(self) -> Mapping[str, int]: ...
    @property
    def refusals(self) -> Mapping[str, int]: ...

    def blocked_by(self, dataset_id: str) -> Unplaceable | None: ...
    def shares(self, now: float) -> Sequence[Share]: ...
    def listed_states(self) -> Mapping[str, int]: ...


@dataclass(slots=True)
class Outside:
    """The newest word on the world outside, as observations told it."""

    build: tuple[str, str]
    feed_up: dict[str, bool] = field(default_factory=dict)
    destination_free: dict[str, int] = field(default_factory=dict)
    manager_up: bool = False
    manager_answered_at: float | None = None
    policy_version: str = ""
    policy_accepted: bool = False
    policy_accepted_at: float = 0.0


Rows = Iterable[tuple[tuple[str, ...], float]]


class ViewCollector(Collector):
    """One pass over the live datasets, one over the nodes; memory only."""

    def __init__(
        self,
        outside: Outside,
        finished: Mapping[tuple[str, State], int],
        labels: BoundedLabels,
        now: Callable[[], float],
        journal_bytes: Callable[[], int],
    ) -> None:
        self.core: CoreView | None = None
        self.ready: Callable[[], bool] = lambda: False
        self.commands: Callable[[], Sequence[CommandCount]] = tuple
        self._outside, self._finished, self._labels = outside, finished, labels
        self._now, self._journal_bytes = now, journal_bytes

    def collect(self) -> Iterator[Metric]:
        yield from self._daemon()
        yield from self._outside_world()
        if self.core is not None:
            yield from self._datasets(self.core)
            yield from self._nodes(self.core)
            yield from self._jobs(self.core)
            yield from self._shares(self.core)
            yield from self._notices(self.core)

    def _family(self, name: str, rows: Rows) -> Metric:
        """Values whose labels became the same (``other``) are added up."""
        metric = METRICS[name]
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = make(name, metric.meaning, labels=metric.labels)
        added: dict[tuple[str, ...], float] = {}
        for raw, value in rows:
            key = tuple(
                self._labels.value(label, part) for label, part in zip(metric.labels, raw, strict=True)
            )
            added[key] = added.get(key, 0.0) + value
        for key, value in sorted(added.items()):
            family.add_metric(list(key), value)
        return family

    def _one(self, name: str, value: float) -> Metric:
        return self._family(name, [((), value)])

    def _daemon(self) -> Iterator[Metric]:
        yield self._family("tiltd_build_info", [(self._outside.build, 1.0)])
        yield self._one("tiltd_ready", float(self.ready()))
        yield self._one("tiltd_journal_size_bytes", self._journal_bytes())

    def _outside_world(self) -> Iterator[Metric]:
        seen = self._outside
        yield self._family("tiltd_feed_up", [((feed,), float(up)) for feed, up in seen.feed_up.items()])
        yield self._family("tiltd_destination_free_bytes", _single(seen.destination_free))
        yield self._one("tiltd_resource_manager_up", float(seen.manager_up))
        if seen.manager_answered_at is not None:
            age = max(0.0, self._now() - seen.manager_answered_at)
            yield self._one("tiltd_resource_manager_answer_age_seconds", age)
        yield self._one("tiltd_policy_last_reload_successful", float(seen.policy_accepted))
        if seen.policy_version:
            yield self._family("tiltd_policy_info", [((seen.policy_version,), 1.0)])
            at = seen.policy_accepted_at
            yield self._one("tiltd_policy_last_reload_success_timestamp_seconds", at)

    def _notices(self, core: CoreView) -> Iterator[Metric]:
        due = dict.fromkeys(CHANNELS, 0)
        oldest_at: dict[str, float] = {}
        for notice in core.state.board.notices.values():
            for channel in map(channel_of, notice.to):
                due[channel] += 1
                oldest_at[channel] = min(notice.due_at, oldest_at.get(channel, notice.due_at))
        now = self._now()
        yield self._family("tiltd_notices_due", _single(due))
        ages = {channel: max(0.0, now - oldest_at.get(channel, now)) for channel in CHANNELS}
        yield self._family("tiltd_notices_oldest_due_seconds", _single(ages))
        yield self._one("tiltd_notices_digests", len(core.state.board.digests))

    def _datasets(self, core: CoreView) -> Iterator[Metric]:
        feeds = self._outside.feed_up
        counts = Counter({(state.value, feed): 0 for feed in feeds for state in State})
        counts.update({(state.value, feed): n for (feed, state), n in self._finished.items()})
        depth = Counter(dict.fromkeys(feeds, 0))
        causes: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        refused: Counter[str] = Counter()
        now = self._now()
        for dataset in core.state.datasets.values():
            counts[dataset.state.value, dataset.feed] += 1
            causes.update(hold.cause for hold in dataset.holds)
            if dataset.state is not State.READY:
                continue
            depth[dataset.feed] += not dataset.holds
            blocked = core.blocked_by(dataset.dataset_id)
            reason = waiting_reason(dataset, blocked, now)
            waited = now - (dataset.completed_at or dataset.state_since_at)
            oldest[reason] = max(oldest.get(reason, 0.0), waited)
            if blocked is not None and not dataset.holds:
                refused[reason] += 1
        yield self._family("tiltd_datasets", counts.items())
        yield self._family("tiltd_queue_depth", _single(depth))
        yield self._family("tiltd_datasets_held", _single(causes))
        yield self._family("tiltd_oldest_waiting_seconds", _single(oldest))
        yield self._family("tiltd_placement_refusals", _single(refused))
        yield self._family("tiltd_refusals_total", _single(core.refusals))
        arriving = Counter(dict.fromkeys(feeds, 0))
        arriving.update(_arriving(core))
        yield self._family("tiltd_series_arriving", _single(arriving))
        yield self._family("tiltd_arriving_quiet_seconds", _single(self._quiet(core, now)))

    def _quiet(self, core: CoreView, now: float) -> dict[str, float]:
        """Of each feed that was looked at.  What is held is known to a person, and may be so for ever."""
        longest = dict.fromkeys(self._outside.feed_up, 0.0)
        for key, arrival in core.arrivals.items():
            dataset = core.state.datasets.get(core.state.current.get(key, ""))
            if dataset is not None and dataset.state is State.ARRIVING and not dataset.holds:
                quiet = now - arrival.stable_since_at
                longest[dataset.feed] = max(longest.get(dataset.feed, 0.0), quiet)
        return longest

    def _shares(self, core: CoreView) -> Iterator[Metric]:
        """Projects become labels only where the site's own policy names them."""
        shares = core.shares(self._now())
        used = [((s.project if s.named else "other",), s.used_core_seconds) for s in shares]
        yield self._family("tiltd_share_used_core_seconds", used)
        yield self._family("tiltd_share_weight", [((s.project,), s.weight) for s in shares if s.named])

    def _jobs(self, core: CoreView) -> Iterator[Metric]:
        """What the resource manager lists, and the commands that it took."""
        yield self._family("tiltd_jobs", _single(Counter(core.listed_states())))
        yield self._family("tiltd_foreign_jobs", _single(Counter(core.foreign_counts)))
        yield self._one("tiltd_jobs_forgotten_total", core.jobs_forgotten)
        ran = self.commands()
        ended: Rows = [((each.command, each.outcome), float(each.count)) for each in ran]
        yield self._family("tiltd_resource_manager_commands_total", ended)
        took: Rows = [((each.command,), each.seconds) for each in ran]
        yield self._family("tiltd_resource_manager_command_seconds_total", took)

    def _nodes(self, core: CoreView) -> Iterator[Metric]:
        nodes, ledger = core.nodes, core.state.ledger
        booked = {name: sum(r.cores for r in ledger.of(name).values()) for name in nodes}
        rows: dict[str, list[tuple[tuple[str, ...], float]]] = {
            "tiltd_node_cores": [((n.name,), n.cores) for n in nodes.values()],
            "tiltd_node_cores_reserved": [((name,), cores) for name, cores in booked.items()],
            "tiltd_node_scratch_size_bytes": [((n.name,), n.scratch_total_bytes) for n in nodes.values()],
            "tiltd_node_scratch_free_bytes": [((n.name,), n.scratch_free_bytes) for n in nodes.values()],
            "tiltd_node_scratch_reserved_bytes": [((name,), ledger.reserved_bytes(name)) for name in nodes],
            "tiltd_node_scratch_leaked_bytes": [
                ((name,), leaked_bytes(name, ledger, core.state.datasets)) for name in nodes
            ],
            "tiltd_nodes": _single(Counter(node.state for node in nodes.values())),
            "tiltd_breakers_open": _single(_open_by_kind(core.state.breakers)),
        }
        for name, values in rows.items():
            yield self._family(name, values)


def waiting_reason(dataset: Dataset, blocked: Unplaceable | None, now: float) -> str:
    """Why a ready dataset waits, as one countable word."""
    if dataset.holds:
        return "held"
    if dataset.retry_not_before_at > now:
        return "retry"
    if blocked is not None and blocked.rejected:
        return max(sorted(blocked.rejected), key=lambda reason: blocked.rejected[reason])
    return "unplaceable" if blocked is not None else "none"


def _single(values: Mapping[str, float] | Counter[str]) -> list[tuple[tuple[str, ...], float]]:
    return [((key,), float(value)) for key, value in values.items()]


def _open_by_kind(breakers: Breakers) -> Counter[str]:
    return Counter(scope.partition(":")[0] for scope in open_scopes(breakers))


def _arriving(core: CoreView) -> Iterator[str]:
    """The feed of each series that is watched and not complete; what waits or runs is watched too."""
    for key in core.arrivals:
        dataset = core.state.datasets.get(core.state.current.get(key, ""))
        if dataset is None or dataset.state is State.ARRIVING:
            yield key[0]
