"""What the pages show, gathered: live and finished datasets, nodes as bars, one dataset's whole story."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, TypeVar

from tiltd.daemon.core.model import Dataset, Record, State
from tiltd.daemon.metrics.view import waiting_reason
from tiltd.policy.breaker import open_scopes, reason

from . import files
from .access import Principal
from .lookup import Lookup, Selection
from .reading import Reading
from .refusal import Refusal
from .story import Told, told
from .view import Daemon, row

Found = TypeVar("Found")
DAY_SECONDS = 86400.0
SHOWN = 8
FILE_SECONDS = 3.0
SCHEDULER_AGAIN_SECONDS = 60.0
SCHEDULER_KEPT_MAX = 1000
MOVING = (State.RESERVED, State.QUEUED, State.RUNNING, State.COLLECTING)


class Line(Record):
    """One dataset in a list.  ``done`` is between 0 and 1; ``None`` where nobody knows."""

    dataset: Dataset
    why: str
    nodes: tuple[str, ...] = ()
    doing: str = ""
    done: float | None = None
    ends_at: float | None = None
    late: bool = False
    minutes: float | None = None


class Part(Record):
    """A piece of a bar, in thousandths of its width."""

    kind: str
    at: int
    width: int


class Bar(Record):
    parts: tuple[Part, ...]
    text: str


class PageData:
    def __init__(self, daemon: Daemon, lookup: Lookup, reading: Reading) -> None:
        self.daemon = daemon
        self.lookup = lookup
        self.reading = reading
        self.scope = reading.scope
        # Results may lie on a file server that hangs: it must stop nobody else.
        self._threads = ThreadPoolExecutor(4, "page-files")
        self._scheduler: dict[str, tuple[float, list[str]]] = {}

    @property
    def now(self) -> float:
        return self.daemon.clock.now()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read_file(self, question: Callable[[], Found], otherwise: Found) -> Found:
        """In a worker thread; a file server that does not answer costs the picture, not the page."""
        try:
            async with asyncio.timeout(FILE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, question)
        except TimeoutError:
            return otherwise

    # -- lists ----------------------------------------------------------------------------------------------

    def line(self, dataset: Dataset) -> Line:
        core, now = self.daemon.core, self.now
        told_row = row(dataset, core, now)
        held = "; ".join(f"{hold.cause.replace('_', ' ')}: {hold.detail}" for hold in dataset.holds)
        minutes = None
        if dataset.state is State.DELIVERED and dataset.last_change_at:
            minutes = max(0.0, dataset.state_since_at - dataset.last_change_at) / 60
        doing, done, ends_at = self._progress(dataset)
        return Line(
            dataset=dataset,
            why=held or told_row["why"],
            nodes=tuple(told_row["nodes"]) if dataset.attempts else (),
            doing=doing,
            done=done,
            ends_at=ends_at,
            late=ends_at is not None and ends_at < now,
            minutes=minutes,
        )

    def _progress(self, dataset: Dataset) -> tuple[str, float | None, float | None]:
        """What it does, how far it is, when its end is expected (from runs of its kind)."""
        attempt = dataset.live_attempt
        if attempt is None or dataset.state not in MOVING:
            return "", None, None
        progress = self.daemon.core.progress(dataset)
        doing = dataset.state.value
        done = None
        if progress is not None and dataset.state is State.RUNNING:
            doing = progress.step or progress.phase.replace("_", " ")
            done = min(1.0, max(0.0, progress.done / progress.total)) if progress.total > 0 else None
        ends_at = None
        if attempt.started_at is not None and attempt.decided is not None:
            ends_at = attempt.started_at + attempt.decided.predicted.seconds_p50
        return doing, done, ends_at

    async def overview(self, principal: Principal) -> dict[str, Any]:
        """One pass over the live datasets; a count and a few rows from the journal's indexes."""
        live = self.scope.live(principal)
        counts = Counter(d.state for d in live)
        held = [d for d in live if d.holds]
        reader, since_at = self.daemon.reader, self.now - DAY_SECONDS
        day = await self.lookup.ask_journal(lambda: reader.counts(principal.named, since_at))
        delivered = await self.lookup.select(principal, Selection(states=(State.DELIVERED,), limit=24))
        failed = await self.lookup.select(principal, Selection(states=(State.FAILED,), limit=SHOWN))
        waiting = sorted((d for d in live if d.state is State.READY and not d.holds), key=_since)
        moving = sorted((d for d in live if d.state in MOVING), key=_since)
        arriving = [d for d in live if d.state is State.ARRIVING and not d.holds]
        finished = await self.scope.finished(principal)
        minutes = [line.minutes for line in map(self.line, delivered) if line.minutes is not None]
        needing = sorted(held, key=_since, reverse=True)[:SHOWN] + failed
        return {
            "counts": {
                "arriving": len(arriving),
                "waiting": len(waiting),
                "running": len(moving),
                "held": len(held),
                "failed": finished["failed"] + counts[State.FAILED],
                "delivered": day.get("delivered", 0) + counts[State.DELIVERED],
            },
            "needing": [self.line(d) for d in needing[:SHOWN]],
            "moving": [self.line(d) for d in moving[: 2 * SHOWN]],
            "waiting": [self.line(d) for d in waiting[:SHOWN]],
            "waiting_why": Counter(
                waiting_reason(d, self.daemon.core.blocked_by(d.dataset_id), self.now) for d in waiting
            ).most_common(4),
            "arriving": [self.line(d) for d in sorted(arriving, key=_since, reverse=True)[:SHOWN]],
            "delivered": [self.line(d) for d in delivered[:SHOWN]],
            "median_minutes": median(minutes) if minutes else None,
            "nodes": self.nodes(principal),
        }

    def troubles(self, principal: Principal, policy: bool = True) -> list[str]:
        """What stands at the top of every page: not ready, a refused ``policy``."""
        if not principal.whole:
            return (
                [] if self.daemon.ready()[0] else ["tiltd cannot do all that it should; its operators know"]
            )
        told_troubles = list(self.daemon.ready()[1])
        if policy and self.daemon.policy_refused:
            told_troubles.append(
                "the policy files are refused, the policy in force stays: " + self.daemon.policy_refused[0]
            )
        return told_troubles

    def breakers(self, principal: Principal) -> list[tuple[str, str]]:
        if not principal.whole:
            return []
        breakers = self.daemon.core.state.breakers
        return [(scope, reason(breakers, scope)) for scope in sorted(open_scopes(breakers))]

    async def projects(self, principal: Principal) -> Sequence[str]:
        """For the list's filter."""
        if principal.named is not None:
            return principal.named
        known = set(await self.lookup.ask_journal(lambda: list(self.daemon.reader.projects())))
        known |= {d.project for d in self.daemon.core.state.datasets.values() if d.project}
        return sorted(known)[:500]

    # -- nodes ----------------------------------------------------------------------------------------------

    def nodes(self, principal: Principal) -> list[dict[str, Any]]:
        return [node | _bars(node) for node in self.scope.nodes(principal)]

    # -- one dataset ----------------------------------------------------------------------------------------

    async def story(self, principal: Principal, dataset: Dataset) -> list[Told]:
        """Its facts and what operators asked for, last first."""
        reader, key = self.daemon.reader, dataset.dataset_id
        facts = await self.lookup.ask_journal(lambda: list(reader.facts(key)))
        acts = await self.lookup.ask_journal(lambda: list(reader.acts(dataset_id=key, limit=200)))
        seen = [each for each in acts if principal.sees_project(each[1].project)]
        return [told(fact) for _, fact in sorted([*facts, *seen], key=lambda each: -each[0])]

    async def pictures(self, dataset: Dataset) -> list[str]:
        if not dataset.result_path or dataset.state is not State.DELIVERED:
            return []
        return await self.read_file(lambda: files.pictures(dataset.result_path), [])

    async def result_files(self, dataset: Dataset) -> list[tuple[str, int]]:
        if not dataset.result_path or dataset.state is not State.DELIVERED:
            return []
        return await self.read_file(lambda: files.listed(dataset.result_path), [])

    async def result_logs(self, dataset: Dataset) -> list[str]:
        if not dataset.result_path or dataset.state is not State.DELIVERED:
            return []
        return await self.read_file(lambda: files.result_logs(dataset.result_path), [])

    async def has_report(self, dataset: Dataset) -> bool:
        if not dataset.result_path or dataset.state is not State.DELIVERED:
            return False
        return await self.read_file(lambda: files.has_report(dataset.result_path), False)

    async def scheduler(self, dataset: Dataset) -> list[str]:
        """The scheduler's words on a job that is queued.  A page is drawn again with every change, the
        scheduler is asked once a minute, and nobody waits long for it."""
        key = f"{dataset.dataset_id} {dataset.attempt.job_id if dataset.attempt is not None else ''}"
        at, words = self._scheduler.get(key, (0.0, []))
        if self.now - at < SCHEDULER_AGAIN_SECONDS or dataset.state is not State.QUEUED:
            return words if dataset.state is State.QUEUED else []
        if len(self._scheduler) >= SCHEDULER_KEPT_MAX:
            self._scheduler.clear()
        try:
            async with asyncio.timeout(FILE_SECONDS):
                words = await self.reading.scheduler(dataset)
        except TimeoutError:
            words = ["Its scheduler did not tell why: no answer."]
        self._scheduler[key] = (self.now, words)
        return words

    def directives(self, dataset: Dataset) -> dict[str, Any] | None:
        """Rows and faults, or the sentence why there are none; ``None`` of a pipeline that takes none."""
        try:
            found = self.reading.directives_of(dataset)
        except Refusal as refusal:
            return {"rows": (), "faults": (), "sentence": refusal.sentence}
        return {"rows": found[0], "faults": found[1], "sentence": ""} if found is not None else None

    async def log(self, attempt_id: str) -> str | None:
        spool = self.daemon.settings.spool_dir
        return await self.read_file(lambda: files.log_tail(spool, attempt_id), None)


def _since(dataset: Dataset) -> float:
    return dataset.state_since_at


def _bars(node: dict[str, Any]) -> dict[str, Bar]:
    """Cores: ours, others', free.  Scratch: booked and not yet there, used, free."""
    cores, free = node["cores"], node["cores_free"]
    ours = min(node["cores_reserved"], cores)
    others = max(0, cores - free - ours)
    total, left = node["scratch_total_bytes"], node["scratch_free_bytes"]
    booked = min(node["scratch_reserved_bytes"], total)
    used = max(0, total - left)
    other_used = max(0, min(used - booked, total - booked))
    return {
        "cores_bar": Bar(
            parts=_parts(cores, (("ours", ours), ("others", others))),
            text=f"{ours} of {cores} cores are tiltd's, {others} others', {cores - ours - others} free",
        ),
        "scratch_bar": Bar(
            parts=_parts(total, (("ours", booked), ("others", other_used))),
            text="scratch",
        ),
    }


def _parts(total: int, pieces: Sequence[tuple[str, int]]) -> tuple[Part, ...]:
    found, at = [], 0
    for kind, amount in pieces:
        width = min(1000 - at, round(1000 * amount / total)) if total > 0 else 0
        if width > 0:
            found.append(Part(kind=kind, at=at, width=width))
            at += width
    return tuple(found)
