"""Wiring: settings, plugins, core, and the named root tasks in one list; start, reload, stop."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import structlog

from tiltd.plugins.api import Counting, PluginError

from . import registry
from .clock import Clock
from .config import FeedSettings, Settings
from .core import effects as e
from .core import facts as f
from .core import observations as o
from .core.core import Core, Step
from .core.model import Dataset, Policy
from .hands import Hands, settle
from .journal import Journal
from .journal_file import JournalError
from .loop import GATHER_SECONDS, Loop
from .metrics import Metrics
from .orphans import find_orphans
from .owning import StartError, journal_is_behind, own, write_mark
from .perform import Perform
from .plugged import Plugged
from .policies import Policies, Refused
from .poll import Pace, Poll, watch_destinations, watch_spool
from .questions.candidate import Judged, judge, live_cases
from .reader import JournalReader
from .site import context_of, fixed_part, site_of
from .spool import Spool
from .spool_owner import SpoolOwner
from .systemd import Systemd
from .telling import tell
from .watch import FeedWatch
from .watcher import Watcher
from .web import Servers
from .wishes import Wishes

DRAIN_SECONDS = 10.0
IDLE_SECONDS = 60.0
MARK_SECONDS = 60.0
LAG_SECONDS = 1.0
COPYING_SECONDS = 60.0
"""For a piece of the journal's copy before an upgrade; systemd waits for that long, again and again."""
THREADS = 24
THREADS_PER_FEED = 3
"""A look, a destination's free space and an import may hang on a file server and must stop nobody else."""


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT.  Returns the exit status; jobs go on without the daemon."""
    systemd = Systemd.from_environment()
    faulthandler.enable()  # the watchdog's SIGABRT leaves in the log where every thread stood
    try:
        app = App(settings, systemd)
        settle()
        asyncio.run(app.run())
    except (StartError, JournalError, registry.RegistryError, PluginError, OSError) as error:
        structlog.get_logger("tiltd").error(f"tiltd cannot start: {error}")
        return 1
    except ExceptionGroup as group:
        lost = group.subgroup(StartError)
        if lost is None:
            raise
        structlog.get_logger("tiltd").error(f"tiltd has to stop: {lost.exceptions[0]}")
        return 1
    return 0


class App:
    """One daemon.  What it is made of stands in ``__init__``, what it does all the time in ``_tasks``."""

    def __init__(self, settings: Settings, systemd: Systemd | None = None) -> None:
        self.settings = settings
        self.systemd = systemd or Systemd()
        self.log = structlog.get_logger("tiltd")
        self._story = structlog.get_logger("tiltd.story").bind()
        self.queues = settings.resource_manager != "local"
        self.clock = Clock()
        self._lock = own(settings.state_dir)
        self.journal = Journal.open(settings.journal, copying=lambda: self.systemd.extend(COPYING_SECONDS))
        self._spool_owner = SpoolOwner(settings.spool_dir, self.journal.journal_id, self.clock.now())
        self.reader = JournalReader(settings.journal)
        self.spool = Spool(settings.spool_dir)
        self.hands = Hands()
        self.metrics = Metrics(self.clock.now, lambda: self.reader.size_bytes)
        self._reload_asked = asyncio.Event()
        self.policies = Policies(settings, self.clock.now, lambda seen: self.loop.put(seen))
        policy = self._first_policy()
        self.plugged = Plugged.of(settings, context_of(settings, self.journal.journal_id, self.hands))
        self.core = Core(site_of(settings), policy, self.plugged.pipelines, self.journal.load())
        self.behind = journal_is_behind(settings.spool_dir, self.journal)
        met = set() if self.behind else set(self.core.state.feeds_met)
        self._without_baseline = {feed.name for feed in settings.feeds} - met
        self._mark_now = asyncio.Event()
        self._stop = asyncio.Event()
        self.loop = Loop(
            self.core,
            self.journal,
            self._start_effect,
            self.clock,
            self._recorded,
            self.metrics.appended,
            GATHER_SECONDS,
            self.systemd.turned,
            self.systemd.beat_seconds,
        )
        self._wishes = Wishes(self.loop)
        self.poll = Poll(self.plugged.manager, self.loop.put, self.clock)
        self.perform = Perform(
            self.core,
            settings,
            self.plugged,
            self.spool,
            self.clock,
            self.loop.put,
            self._wishes.replied,
            self.hands,
        )
        self.servers = Servers(self)
        self._awaited: dict[int, asyncio.Event] = {}
        self._wakes = {feed.name: asyncio.Event() for feed in settings.feeds}

    def _first_policy(self) -> Policy:
        """Raises StartError with every fault, a line each."""
        try:
            return self.policies.begin()
        except Refused as refused:
            raise StartError(str(refused)) from None

    # -- the life of the daemon ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything in one task group: if one root task ends, all stop."""
        running = asyncio.get_running_loop()
        threads = THREADS + THREADS_PER_FEED * len(self.settings.feeds)
        running.set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="tiltd"))
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, self._stop.set)
        running.add_signal_handler(signal.SIGHUP, self.reload)
        counting = self.plugged.manager
        self.metrics.attach(
            self.core,
            lambda: self.ready()[0],
            self.reader.finished_counts(),
            counting.counts if isinstance(counting, Counting) else tuple,
        )
        await self.policies.loaded()
        await self._adopt_orphans()
        await self.servers.start()
        self.log.info("tiltd is up", feeds=len(self.settings.feeds), live=len(self.core.state.datasets))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work, name=name) for name, work in self._tasks().items()]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await self._close()

    def _tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """The root tasks, by name."""
        settings, following, put = self.settings, self.core.following, self.loop.put
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            "loop": self.loop.run(),
            "jobs": self.poll.jobs(
                self._pace(),
                # While the journal cannot be written nothing is taken in: the inbox must not grow.
                lambda: bool(following.live()) and not self.loop.stuck,
                following.is_close,
                following.job_ids,
                lambda: IDLE_SECONDS if self.queues and not self.loop.stuck else 0.0,
            ),
            "nodes": self.poll.nodes(settings.poll.nodes_seconds, self.queues),
            "spool": watch_spool(
                self.spool, self.hands, following.live_changes, put, self.clock, settings.poll.spool_seconds
            ),
            "destinations": watch_destinations(self._destinations, put, self.clock),
            "policy": self.policies.watch(),
            "hours": self.policies.hours(),
            "reload": self._reload_when_asked(),
            "mark": self._mark(),
            "lag": self._lag(),
        }
        for feed in settings.feeds:
            tasks[f"feed {feed.name}"] = self._watch(feed)
        return tasks

    def _pace(self) -> Pace:
        """This machine's own jobs cost nothing to look at; a batch server that serves many is asked less."""
        poll = self.settings.poll
        if not self.queues:
            return Pace(poll.jobs_seconds, poll.jobs_seconds)
        return Pace(poll.queue_seconds, poll.queue_seconds_max)

    async def _watch(self, feed: FeedSettings) -> None:
        first = feed.name in self._without_baseline
        reason = "the journal is older than its mark in the spool" if self.behind else "new feed"
        watch = FeedWatch(
            feed.name,
            str(feed.path),
            self.plugged.detectors[feed.detector],
            self.reader,
            first=first,
            first_reason=reason,
            labels=feed.labels,
            pattern=feed.pattern,
            open_after_seconds=min(10.0, 2 * feed.scan_seconds),
        )
        # What was taken over from the spool is no news of the feed: it has to be known first.
        await self._put_recorded(o.TimeReached(at=self.clock.now()))
        watcher = Watcher(watch, scan_seconds=feed.scan_seconds, inotify=feed.inotify)
        await watcher.run(
            self._put_recorded,
            lambda: self.core.watchlist(feed.name),
            self.clock.now,
            self._wakes[feed.name],
        )

    async def _close(self) -> None:
        """Jobs are left running; what was under way is done again at the next start."""
        self.systemd.stopping()
        self.systemd.status("stopping; running jobs go on")
        await self.servers.stop()
        await self.perform.drain(DRAIN_SECONDS)
        self.hands.close()
        with contextlib.suppress(Exception):
            await self.journal.close(None if self.loop.ahead else self.core.state)
        if not self._without_baseline:
            write_mark(self.settings.spool_dir, self.journal)
        self.reader.close()
        self._spool_owner.release()
        self._lock.close()
        self.log.info("tiltd has stopped; running jobs go on")

    # -- the loop's companions -------------------------------------------------------------------------------

    async def _put_recorded(self, observation: o.Observation) -> None:
        """Into the inbox, and wait until what follows from it is durable: a feed is looked at again only
        when the journal's ``seen`` table tells what became of the last look."""
        self._awaited[id(observation)] = recorded = asyncio.Event()
        await self.loop.put(observation)
        await recorded.wait()

    def _start_effect(self, effect: e.Effect) -> None:
        self.perform.start(effect)

    def _recorded(self, observation: o.Observation | None, step: Step) -> None:
        """After the append: metrics, and what the facts make worth looking at sooner."""
        if observation is not None:
            self.metrics.saw(observation)
            if recorded := self._awaited.pop(id(observation), None):
                recorded.set()
        self.metrics.observe(step.facts, self.core)
        tell(step.facts, self._story)
        self.servers.changed(step.records, nodes=isinstance(observation, o.NodesObserved))
        for fact in step.facts:
            if isinstance(fact, f.FeedMet):
                self._without_baseline.discard(fact.feed)
                self._mark_now.set()
        if self._hints(observation, step):
            self.poll.look_at_jobs()
        if isinstance(observation, o.ReleaseAnswered) and not observation.trouble:
            self.poll.look_at_nodes()
        if isinstance(observation, o.OperatorAsked):
            for wake in self._wakes.values():
                wake.set()
        for bug in self.core.bugs:
            about = {"dataset": bug.dataset_id} if bug.dataset_id else {}
            self.log.error("a bug of tiltd: please report it", detail=str(bug), **about)
        self.core.bugs.clear()

    @staticmethod
    def _hints(observation: o.Observation | None, step: Step) -> bool:
        """Does it make a look at the jobs worth while: an end that is to be proved, or a job to be gone?"""
        ended = isinstance(observation, o.SpoolObserved) and observation.end is not None
        return ended or any(isinstance(fact, f.StopRequested | f.AttemptRevoked) for fact in step.facts)

    async def ask(self, observation: o.OperatorAsked) -> tuple[bool, str]:
        """An operator's wish; answered once it is durable."""
        return await self._wishes.ask(observation)

    async def prune_journal(self, dataset_ids: Sequence[str]) -> int:
        """Forget the facts of finished datasets; they stay known.  Returns how many facts went."""
        return await self.journal.prune(dataset_ids)

    def pipeline_options(self, name: str) -> Sequence[Any]:
        """What the pipeline lets operators change (:class:`tiltd.plugins.options.Option`), if it tells."""
        return tuple(getattr(self.plugged.pipelines.get(name), "options", ()))

    def ready(self) -> tuple[bool, list[str]]:
        """For ``/readyz``: can everything that should happen happen?"""
        troubles = [self.loop.stuck] if self.loop.stuck else []
        if self.core.server_up is False:
            troubles.append(f"the resource manager does not answer: {self.core.server_trouble}")
        elif self.core.server_up is None:
            troubles.append("the resource manager has not answered yet")
        for feed, (up, detail) in self.core.arriving.feeds_up.items():
            troubles += [] if up else [f"feed {feed}: {detail}"]
        return not troubles, troubles

    def _destinations(self) -> dict[str, str]:
        """Folders whose free space counts: by feed, and by template those that the policy's rules name."""
        by_feed = {feed.name: fixed_part(feed.destination) for feed in self.settings.feeds}
        named = (rule.sets.get("destination", "") for rule in self.core.policy.rules)
        return by_feed | {template: fixed_part(template) for template in named if template}

    # -- policy ----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: a policy that is refused changes nothing, and says why."""
        self._reload_asked.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            self.systemd.reloading()
            try:
                await self._directives_again()
                await self.policies.reload("SIGHUP")
            finally:
                self.systemd.ready()

    async def _directives_again(self) -> list[str]:
        """Templates are read with the policy: waiting series are judged again by both."""
        faults = await self.plugged.read_again()
        if faults:
            self.log.error("the templates were refused, those in force stay", faults=faults)
        return faults

    @property
    def policy_refused(self) -> list[str]:
        """The faults of the policy files as they are, if they were refused."""
        return list(self.policies.refused)

    async def reload_policy(self, by: str) -> tuple[bool, list[str], str]:
        """``tiltd policy reload``: accepted?  Else the faults.  And the version that is in force then."""
        faults = await self._directives_again()
        faults += await self.policies.reload(f"command by {by}")
        return not faults, faults, self.policies.policy.version

    async def try_policy(self, text: str, instead: bool) -> Judged:
        """A candidate, judged beside the policy in force and about what waits and runs; not applied."""
        cases = live_cases(self.core, self.core.state.datasets.values())
        nodes = tuple(self.core.nodes.values())
        return await asyncio.to_thread(
            judge, text, self.settings, self.core.policy, instead=instead, cases=cases, nodes=nodes
        )

    # -- crash recovery --------------------------------------------------------------------------------------

    async def _adopt_orphans(self) -> None:
        """Attempts in the spool that the journal does not know: taken over by their own job files."""

        def known(dataset_id: str) -> Dataset | None:
            return self.core.state.datasets.get(dataset_id) or self.reader.dataset(dataset_id)

        def look() -> list[o.SpoolOrphan]:
            # A journal that is whole knows all attempts of what is finished: there may be 100,000.
            finished = frozenset() if self.behind else self.reader.finished_ids()
            return list(find_orphans(self.spool, known, finished, self.clock.now))

        for orphan in await asyncio.to_thread(look):
            await self.loop.put(orphan)

    async def _mark(self) -> None:
        """Mark the spool with how far the journal is: never before every feed has its baseline, so that a
        crash in the middle of it begins it again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MARK_SECONDS):
                    await self._mark_now.wait()
            self._mark_now.clear()
            if taken := await asyncio.to_thread(self._spool_owner.renew):
                raise StartError(taken)
            if not self._without_baseline:
                await asyncio.to_thread(write_mark, self.settings.spool_dir, self.journal)

    async def _lag(self) -> None:
        """How late the event loop comes to what it should do."""
        while True:
            due = perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.metrics.measure("tiltd_event_loop_lag_seconds", perf_counter() - due)
            live = len(self.core.state.datasets)
            self.systemd.status("; ".join(self.ready()[1]) or f"{live} series in hand")
