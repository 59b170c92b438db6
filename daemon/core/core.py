"""The core: ``handle(observation) -> facts, effects``.  Pure; time comes with the observation.

Observations come in, each room draws what follows and records it as facts, then what has become
placeable is placed, and the difference in outstanding effects goes out::

    observation -> arriving | following | operating | answers -> facts -> placing -> facts -> effects
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.plugins.api import DirectiveFault, DirectiveRow, Pipeline
from tiltd.policy.filters import UP

from . import effects as e
from . import explain
from . import facts as f
from . import observations as o
from .answers import Answers
from .arriving import Arrival, Arriving
from .desk import Bug, Desk
from .following import Following
from .giving_back import GivingBack
from .model import Dataset, NodeInfo, Options, Policy, Progress, Record, State, Unplaceable
from .noticing import Noticing
from .operating import Operating
from .outstanding import outstanding
from .performing import Performing
from .placing import Placing
from .sharing import Share
from .site import Site
from .state import CoreState

FAULTS_KEPT = 20
FAULTS_TOLD = 3
"""Faults of a refused policy that stand in the fact, and in the notice."""


class Step(Record):
    """What one observation led to.  ``effects`` may be started once ``facts`` and ``records`` are durable:
    the last record of every dataset that changed, with ``finalized_at`` once it left the working set."""

    facts: tuple[f.Fact, ...]
    records: tuple[Dataset, ...]
    effects: tuple[e.Effect, ...]


class Core:
    """One facility.  Cost of an observation: the datasets it names, and one look at each waiting request
    when a node gains room; never the number of finished datasets."""

    def __init__(
        self,
        site: Site,
        policy: Policy,
        pipelines: Mapping[str, Pipeline],
        state: CoreState | None = None,
    ) -> None:
        self.desk = Desk(state or CoreState(), policy, site, pipelines)
        self.noticing = Noticing(self.desk)
        self.placing = Placing(self.desk)
        self.arriving = Arriving(self.desk, self.placing.deciding)
        self.following = Following(self.desk, self.placing)
        self.giving_back = GivingBack(self.desk, self.placing)
        self.operating = Operating(self.desk, self.arriving)
        self.performing = Performing(self.desk)
        self.answers = Answers(self.desk, self.following, self.performing, self.placing)
        self.server_up: bool | None = None
        self.server_trouble = ""
        self.server_answered_at: float | None = None
        self.foreign_counts: dict[str, int] = {}
        self._handlers: dict[type[o.Observation], Callable[[Any], e.Reply | None]] = {
            o.OperatorAsked: self.operating.ask,
            o.FilesObserved: self._files,
            o.JobsObserved: self._jobs,
            o.NodesObserved: self._nodes,
            o.ServerUnreachable: self._unreachable,
            o.SpoolObserved: self._spool,
            o.SpoolOrphan: self._orphan,
            o.PolicyLoaded: self._policy,
            o.PolicyRefused: self._policy_refused,
            o.CivilTimeObserved: self._civil,
            o.TimeReached: self._time,
            o.DestinationsObserved: self._destinations,
            **self.answers.handlers,
        }

    # -- what others read ------------------------------------------------------------------------------

    @property
    def state(self) -> CoreState:
        return self.desk.state

    @property
    def policy(self) -> Policy:
        return self.desk.policy

    @property
    def nodes(self) -> dict[str, NodeInfo]:
        return self.placing.nodes

    @property
    def next_wake_at(self) -> float | None:
        return self.desk.next_wake_at

    @property
    def arrivals(self) -> dict[tuple[str, str], Arrival]:
        return self.arriving.arrivals

    @property
    def refusals(self) -> Counter[str]:
        """Reasons for which something was not placed, counted since the start."""
        return self.desk.refusals

    @property
    def jobs_forgotten(self) -> int:
        """Jobs that vanished from the list without being shown completed, counted since the start."""
        return self.following.forgotten

    def listed_states(self) -> Counter[str]:
        """Jobs of live attempts by the state they are listed in."""
        return self.following.listed_states()

    @property
    def bugs(self) -> list[Bug]:
        """Bugs that were met and contained, newest last; who has told of them clears the list."""
        return self.desk.bugs

    def blocked_by(self, dataset_id: str) -> Unplaceable | None:
        return self.placing.blocked.by(dataset_id)

    def shares(self, now: float) -> list[Share]:
        """How projects stand in fair sharing, the least served first."""
        return self.placing.sharing.shares(now)

    def why(self, dataset_id: str, now: float) -> list[str]:
        """Why it is where it is, in words; see ``explain.py``."""
        return explain.why(self, dataset_id, now)

    def directives(
        self, dataset: Dataset
    ) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]] | None:
        """The directives of its run, with what is wrong with them; see ``explain.py``."""
        return explain.directives(self, dataset)

    def release_troubles(self, attempt_id: str, node: str) -> list[str]:
        """Why the scratch of an attempt that is over is still booked on a node."""
        dataset_id = attempt_id.rpartition(".a")[0]
        effect = e.ReleaseScratch(attempt_id=attempt_id, dataset_id=dataset_id, node=node)
        return self.performing.troubles_of(dataset_id, effect)

    def objection(self, action: str, dataset: Dataset, options: Options) -> str:
        """Why an operator's action would be refused; empty if it can be tried.  Changes nothing."""
        return self.operating.objection(action, dataset, options)

    def progress(self, dataset: Dataset) -> Progress | None:
        """The newest word of the runner of its newest attempt."""
        attempt = dataset.attempt
        seen = self.following.seen.get(attempt.attempt_id) if attempt is not None else None
        return seen.progress if seen is not None else None

    def notice_troubles(self, notice_id: str, to: str) -> list[str]:
        """Why a notice that is due has not reached this destination yet."""
        return self.performing.troubles_of("", e.SendNotice(notice_id=notice_id, to=to))

    def watchlist(self, feed: str) -> dict[str, str]:
        return self.arriving.watchlist(feed)

    def outstanding(self) -> frozenset[e.Effect]:
        return outstanding(self.state, self.desk.site.feeds)

    # -- the one way in --------------------------------------------------------------------------------

    def handle(self, observation: o.Observation) -> Step:
        """Take one observation in.  Never raises for what the world shows; a bug of ours stops the dataset
        it is about (held, cause ``bug``) and stands in ``bugs``, and everything else goes on."""
        desk = self.desk
        desk.begin(observation.at)
        reply: e.Reply | None = None
        try:
            reply = self._handlers[type(observation)](observation)
        except Exception as bug:  # ours; it is told, and the daemon goes on
            desk.bug(bug)
            if isinstance(observation, o.OperatorAsked):
                reply = e.Reply(request_id=observation.request_id, ok=False, message=str(bug))
        try:
            self.placing.run()
        except Exception as bug:
            desk.bug(bug)
        return self._step(reply)

    def recover(self, at: float) -> Step:
        """After a restart: everything outstanding is asked for again."""
        desk = self.desk
        desk.begin(at)
        desk.touched = dict.fromkeys((*self.state.datasets, ""))
        placing = self.placing
        rooms = (
            placing.gates.recount,
            placing.deadlines.recount,
            placing.reload,
            self.following.recount,
            placing.run,
            self.noticing.recount,
        )
        for room in rooms:
            try:
                room()
            except Exception as bug:  # ours; a daemon that starts can tell of it
                desk.bug(bug)
        return self._step()

    def _step(self, reply: e.Reply | None = None) -> Step:
        """Its facts, and the effects that they call for; what is terminal and calls for none more leaves the
        working set."""
        desk = self.desk
        effects, over = self.performing.difference()
        for dataset in over:
            self.following.forget(dataset)
            desk.record(f.DatasetFinalized(at=desk.now, dataset_id=dataset.dataset_id))
        if reply is not None:
            effects.append(reply)
        return Step(facts=tuple(desk.facts), records=tuple(desk.records.values()), effects=tuple(effects))

    # -- handlers of whole pictures --------------------------------------------------------------------

    def _files(self, seen: o.FilesObserved) -> None:
        self.arriving.files(seen)
        self.noticing.feed(seen.feed, seen.up, seen.detail)

    def _jobs(self, seen: o.JobsObserved) -> None:
        self._answered()
        self.foreign_counts = seen.foreign_counts
        self.following.jobs(seen)

    def _spool(self, seen: o.SpoolObserved) -> None:
        self.following.spool(seen)
        if seen.runs:
            self.giving_back.told(seen)

    def _nodes(self, seen: o.NodesObserved) -> None:
        self._answered()
        away = {name for name, node in self.nodes.items() if node.state not in UP}
        back = [node.name for node in seen.nodes if node.state in UP and node.name in away]
        self.noticing.nodes(self.nodes, seen.nodes)
        self.placing.observe(seen.nodes)
        self.following.nodes()
        for name in back:
            for attempt_id in self.state.ledger.of(name):
                dataset_id = attempt_id.rpartition(".a")[0]
                self.performing.hurry(
                    e.ReleaseScratch(attempt_id=attempt_id, dataset_id=dataset_id, node=name)
                )

    def _answered(self) -> None:
        self.server_up, self.server_trouble = True, ""
        self.server_answered_at = self.desk.now
        self.noticing.server(True)

    def _unreachable(self, seen: o.ServerUnreachable) -> None:
        self.server_up, self.server_trouble = False, seen.detail
        self.noticing.server(False, seen.detail)

    def _destinations(self, seen: o.DestinationsObserved) -> None:
        self.placing.observe_destinations(seen.free_bytes)
        self.noticing.destinations(self.placing.without_room)

    def _policy(self, seen: o.PolicyLoaded) -> None:
        """One reference is swapped; then ARRIVING is judged again and READY placed again.  RESERVED and later
        stay as they are, and no hold is lifted but the policy's own."""
        desk, known = self.desk, self.desk.policy.version
        desk.policy = seen.policy
        self.placing.deciding.adopt(seen.civil)
        if known != seen.policy.version or seen.reason == "start" or desk.state.refused_policy:
            desk.record(
                f.PolicyAdopted(
                    at=desk.now,
                    version=seen.policy.version,
                    reason=seen.reason,
                    half_life_seconds=seen.policy.sharing.half_life_seconds,
                )
            )
        self.arriving.judge_all()
        self.placing.reload()
        self.noticing.hour(seen.civil)

    def _policy_refused(self, seen: o.PolicyRefused) -> None:
        """It changes nothing; it is told, once for the same content."""
        desk = self.desk
        if desk.state.refused_policy == seen.content:
            return
        desk.record(f.PolicyRejected(at=desk.now, content=seen.content, faults=seen.faults[:FAULTS_KEPT]))
        more = len(seen.faults) - FAULTS_TOLD
        told = "; ".join(seen.faults[:FAULTS_TOLD]) + (f"; and {more} more" if more > 0 else "")
        desk.notice(
            "policy_refused",
            f"the policy was refused, version {desk.policy.version} stays in force: {told}",
            f"{seen.content}@{desk.now:.0f}",
        )

    def _civil(self, seen: o.CivilTimeObserved) -> None:
        self.placing.deciding.turned(seen.civil)
        self._decide_again()
        self.noticing.hour(seen.civil)

    def _decide_again(self) -> None:
        """What rules can see has turned: the arriving are judged again, the waiting decided again."""
        self.arriving.judge_all()
        self.placing.decide_again()

    def _orphan(self, seen: o.SpoolOrphan) -> None:
        """An attempt whose record came only with its job file: taken over, if nothing newer is known.

        The job file was written while it was RESERVED.  With a claim there is a job; without one it is
        submitted again, which adopts the job that already bears its name.
        """
        record, attempt = seen.record, seen.record.attempt
        dataset = self.desk.dataset(record.dataset_id)
        if attempt is None or (dataset is not None and dataset.state not in (State.ARRIVING, State.READY)):
            return
        if seen.job_id:
            attempt = replace(attempt, job_id=seen.job_id, accepted_at=self.desk.now)
        record = replace(
            record,
            state=State.QUEUED if seen.job_id else State.RESERVED,
            state_since_at=self.desk.now,
            attempts=(*record.attempts[:-1], attempt),
        )
        self.desk.record(f.DatasetAdopted(at=self.desk.now, dataset_id=record.dataset_id, record=record))

    def _time(self, seen: o.TimeReached) -> None:
        for key in self.desk.due():
            try:
                self._due(key)
            except Exception as bug:  # of one; the others are due as well
                self.desk.bug(bug, self._about(key))

    def _about(self, key: tuple[str, ...]) -> str:
        """The dataset that a wake-up is for, if it is for one."""
        match key:
            case ("arrival" | "gone", feed, series_key):
                return self.state.current.get((feed, series_key), "")
            case ("dataset" | "due", dataset_id):
                return dataset_id
        return ""

    def _due(self, key: tuple[str, ...]) -> None:
        match key:
            case ("arrival", feed, series_key):
                self.arriving.judge((feed, series_key))
            case ("gone", feed, series_key):
                self.arriving.still_gone((feed, series_key))
            case ("dataset", dataset_id):
                self._look(dataset_id)
            case ("effect", owner):
                self.desk.touched[owner] = None
            case ("due", dataset_id):
                self.placing.deadlines.due(dataset_id)
            case ("civil",):
                if self.placing.deciding.lapsed():
                    self._decide_again()
            case ("notices",):
                self.noticing.due()
            case ("waiting",):
                pass  # ``placing.run`` counts those that wait in every step
            case _:
                self.placing.look_again(key)

    def _look(self, dataset_id: str) -> None:
        dataset = self.desk.dataset(dataset_id)
        if dataset is None:
            return
        if dataset.state is State.READY:
            self.arriving.settled(dataset)
            self.placing.consider(self.state.datasets[dataset_id])
        else:
            self.following.consider(dataset)
