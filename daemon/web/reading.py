"""GET: what the daemon knows.  Nothing here changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tiltd.daemon.core.bookings import Booking, bookings, leaked_bytes
from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.metrics.view import CoreView, waiting_reason
from tiltd.daemon.text import shown
from tiltd.plugins.api import Permanent

from .guard import Refusal, answer
from .lookup import MAX_ROWS, Lookup, Selection
from .view import Daemon, finished_story, record, row

API = "/api/v1"


class Reading:
    """The handlers; each says what it costs where that is not one dataset's worth."""

    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get(f"{API}/status", self.status),
            web.get(f"{API}/datasets", self.datasets),
            web.get(f"{API}/datasets/{{name:[^/]+}}", self.dataset),
            web.get(f"{API}/datasets/{{name:[^/]+}}/facts", self.facts),
            web.get(f"{API}/datasets/{{name:[^/]+}}/directives", self.directives),
            web.get(f"{API}/why/{{name:[^/]+}}", self.why),
            web.get(f"{API}/nodes", self.nodes),
            web.get(f"{API}/feeds", self.feeds),
            web.get(f"{API}/ignored", self.ignored),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.daemon.metrics.render(), headers=headers)

    async def healthz(self, request: web.Request) -> web.Response:
        """That it answers is the health: the loop turns."""
        return answer({"ok": True})

    async def readyz(self, request: web.Request) -> web.Response:
        ready, sentences = self.daemon.ready()
        return answer({"ready": ready, "reasons": sentences}, 200 if ready else 503)

    async def status(self, request: web.Request) -> web.Response:
        """One pass over the live datasets."""
        core, now = self.daemon.core, self.daemon.clock.now()
        ready, sentences = self.daemon.ready()
        datasets = core.state.datasets.values()
        outside = self.daemon.metrics.outside
        finished: Counter[str] = Counter()
        for (_, state), count in self.daemon.metrics.finished.items():
            finished[state.value] += count
        oldest = min((d for d in datasets if d.state is State.READY), key=_completed_at, default=None)
        return answer(
            {
                "ready": ready,
                "reasons": sentences,
                "version": outside.build[0],
                "policy_version": outside.policy_version,
                "policy_refused": self.daemon.policy_refused,
                "policy": {
                    "version": outside.policy_version,
                    "accepted_at": outside.policy_accepted_at,
                    "last_reload_accepted": outside.policy_accepted,
                    "faults": self.daemon.policy_refused,
                },
                "shares": [record(share) for share in core.shares(now)],
                "resource_manager": self.daemon.settings.resource_manager,
                "resource_manager_up": outside.manager_up,
                "states": dict(Counter(d.state.value for d in datasets) + finished),
                "held": dict(Counter(hold.cause for d in datasets for hold in d.holds)),
                "oldest_waiting": _waiting(oldest, core, now),
                "feeds_up": dict(outside.feed_up),
                "nodes": dict(Counter(node.state for node in core.nodes.values())),
                "now_at": now,
            }
        )

    async def datasets(self, request: web.Request) -> web.Response:
        found = await self.lookup.select(selection(query(request)))
        core, now = self.daemon.core, self.daemon.clock.now()
        return answer({"datasets": [row(d, core, now) for d in found], "now_at": now})

    async def dataset(self, request: web.Request) -> web.Response:
        dataset = await self.lookup.one(path_name(request))
        return answer({"dataset": record(dataset), "why": self._why(dataset)})

    async def facts(self, request: web.Request) -> web.Response:
        dataset = await self.lookup.one(path_name(request))
        reader = self.daemon.reader
        rows = await self.lookup.ask_journal(lambda: list(reader.facts(dataset.dataset_id)))
        facts = [{"sequence": number} | record(fact) for number, fact in rows]
        return answer({"dataset_id": dataset.dataset_id, "facts": facts})

    async def directives(self, request: web.Request) -> web.Response:
        """What its run is given; cost: the rules and the directives."""
        dataset = await self.lookup.one(path_name(request))
        try:
            found = self.daemon.core.directives(dataset)
        except Permanent as error:
            raise Refusal(422, str(error)) from None
        if found is None:
            why = "its files are not complete yet" if dataset.series is None else "its pipeline takes none"
            raise Refusal(422, f"{dataset.dataset_id} has no directives: {why} ({dataset.pipeline})")
        rows, faults = found
        return answer(
            {
                "dataset_id": dataset.dataset_id,
                "name": dataset.tilt_series_name,
                "state": dataset.state.value,
                "pipeline": dataset.pipeline,
                "directives": [record(each) for each in rows],
                "faults": [record(each) for each in faults],
            }
        )

    async def why(self, request: web.Request) -> web.Response:
        name = path_name(request)
        try:
            dataset = await self.lookup.one(name)
        except Refusal as refusal:
            lines = await self._why_ignored(name) if refusal.status == 404 else []
            if not lines:
                raise
            return answer({"dataset_id": "", "name": name, "state": "ignored", "lines": lines})
        return answer(
            {
                "dataset_id": dataset.dataset_id,
                "name": dataset.tilt_series_name,
                "state": dataset.state.value,
                "lines": self._why(dataset) + await self._scheduler(dataset),
            }
        )

    async def _scheduler(self, dataset: Dataset) -> list[str]:
        """The scheduler's own words on a job that waits in its queue: one or two of its commands."""
        live = self.daemon.core.state.datasets.get(dataset.dataset_id)
        if live is None or live.state is not State.QUEUED or live.attempt is None or not live.attempt.job_id:
            return []
        return list(await self.daemon.plugged.scheduler_words(live.attempt.job_id))

    def _why(self, dataset: Dataset) -> list[str]:
        if dataset.dataset_id in self.daemon.core.state.datasets:
            return list(self.daemon.core.why(dataset.dataset_id, self.daemon.clock.now()))
        return finished_story(dataset)

    async def _why_ignored(self, name: str) -> list[str]:
        return [
            f"{entry['feed']}/{shown(entry['series_key'])} is no tilt series: "
            f"{entry['reason']}. {entry['detail']}"
            for entry in await self._ignored_series("")
            if name and name in (entry["series_key"], entry["series_key"].rpartition("/")[2])
        ]

    async def nodes(self, request: web.Request) -> web.Response:
        """Every node with who booked what; costs the bookings."""
        state = self.daemon.core.state
        nodes = []
        for name, node in sorted(self.daemon.core.nodes.items()):
            booked = bookings(name, state.ledger, state.datasets)
            told = [record(booking) | self._why_leaked(booking) for booking in booked]
            nodes.append(
                record(node)
                | {
                    "cores_reserved": sum(booking.cores for booking in booked),
                    "scratch_reserved_bytes": state.ledger.reserved_bytes(name),
                    "scratch_leaked_bytes": leaked_bytes(name, state.ledger, state.datasets),
                    "attempts": [booking.attempt_id for booking in booked],
                    "bookings": told,
                }
            )
        return answer({"nodes": nodes, "now_at": self.daemon.clock.now()})

    def _why_leaked(self, booking: Booking) -> dict[str, list[str]]:
        if booking.plight != "leaked":
            return {"why": []}
        return {"why": list(self.daemon.core.release_troubles(booking.attempt_id, booking.node))}

    async def feeds(self, request: web.Request) -> web.Response:
        """One pass over the live datasets."""
        live = Counter((d.feed, d.state.value) for d in self.daemon.core.state.datasets.values())
        up = self.daemon.metrics.outside.feed_up
        feeds = [
            {
                "name": feed.name,
                "path": str(feed.path),
                "detector": feed.detector,
                "pipeline": feed.pipeline,
                "destination": feed.destination,
                "up": up.get(feed.name),
                "states": {state: count for (name, state), count in live.items() if name == feed.name},
            }
            for feed in self.daemon.settings.feeds
        ]
        return answer({"feeds": feeds})

    async def ignored(self, request: web.Request) -> web.Response:
        return answer({"ignored": await self._ignored_series(query(request).get("feed", ""))})

    async def _ignored_series(self, feed: str) -> list[dict[str, str]]:
        """What was opened in this feed, or in all (""), and is no tilt series; at most MAX_ROWS are told."""
        names = [each.name for each in self.daemon.settings.feeds if feed in ("", each.name)]
        reader = self.daemon.reader

        def read() -> list[dict[str, str]]:
            rows = ((name, seen) for name in names for seen in reader.ignored(name))
            found = [
                {"feed": name, "series_key": seen.series_key, "reason": seen.reason, "detail": seen.detail}
                for name, seen in rows
            ]
            return found[:MAX_ROWS]

        return await self.lookup.ask_journal(read)


def _completed_at(dataset: Dataset) -> float:
    return dataset.completed_at or dataset.state_since_at


def _waiting(dataset: Dataset | None, core: CoreView, now: float) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.tilt_series_name,
        "seconds": now - _completed_at(dataset),
        "reason": waiting_reason(dataset, core.blocked_by(dataset.dataset_id), now),
    }


def path_name(request: web.Request) -> str:
    """The name in the path, bytes that are no UTF-8 as ``os.fsdecode`` gives them."""
    raw = request.raw_path.partition("?")[0].removeprefix(f"{API}/").split("/")
    return unquote(raw[1] if len(raw) > 1 else "", errors="surrogateescape")


def query(request: web.Request) -> dict[str, str]:
    raw = request.raw_path.partition("?")[2]
    try:
        return dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=32))
    except ValueError:
        raise Refusal(400, "the address has too many parameters") from None


def selection(fields: Mapping[str, Any]) -> Selection:
    """From the query of a GET or the ``selection`` of an action.  Raises Refusal (400)."""
    known = {"state", "feed", "project", "session", "name", "limit"}
    if unknown := sorted(set(fields) - known):
        raise Refusal(400, f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
    texts = {key: fields.get(key, "") for key in known - {"limit"}}
    if any(not isinstance(value, str) for value in texts.values()):
        raise Refusal(400, "a selection's fields are texts")
    try:
        states = tuple(State(word) for word in texts.pop("state").split(",") if word)
    except ValueError as error:
        raise Refusal(400, f"{error}; states are {', '.join(State)}") from None
    limit = str(fields.get("limit", 500))
    if (
        not limit.isascii()
        or not limit.isdigit()
        or not 0 < len(limit) <= 5
        or not 1 <= int(limit) <= MAX_ROWS
    ):
        raise Refusal(400, f"limit must be a whole number from 1 to {MAX_ROWS}")
    return Selection(states=states, limit=int(limit), **texts)
