"""GET: what the daemon knows.  Nothing here changes anything."""

from __future__ import annotations

from aiohttp import web

from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.text import shown
from tiltd.plugins.api import DirectiveFault, DirectiveRow, Permanent

from .access import Principal
from .asked import known_only, path_part, place_of, place_text, query, selection, whole
from .guard import who
from .lookup import MAX_ROWS, Lookup
from .refusal import Refusal, answer
from .routes import API, Route
from .scope import Scope
from .view import Daemon, finished_story, record, row


class Reading:
    """The handlers; each says what it costs where that is not one dataset's worth."""

    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup
        self.scope = Scope(daemon, lookup)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/metrics", self.metrics, "whole"),
            Route("GET", "/healthz", self.healthz, "nothing"),
            Route("GET", "/readyz", self.readyz, "nothing"),
            Route("GET", f"{API}/status", self.status, "read"),
            Route("GET", f"{API}/datasets", self.datasets, "read"),
            Route("GET", f"{API}/datasets/{{name:[^/]+}}", self.dataset, "read"),
            Route("GET", f"{API}/datasets/{{name:[^/]+}}/facts", self.facts, "read"),
            Route("GET", f"{API}/datasets/{{name:[^/]+}}/directives", self.directives, "read"),
            Route("GET", f"{API}/why/{{name:[^/]+}}", self.why, "read"),
            Route("GET", f"{API}/nodes", self.nodes, "read"),
            Route("GET", f"{API}/feeds", self.feeds, "read"),
            Route("GET", f"{API}/ignored", self.ignored, "read"),
            Route("GET", f"{API}/acts", self.acts, "read"),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.daemon.metrics.render(), headers=headers)

    async def healthz(self, request: web.Request) -> web.Response:
        """That it answers is the health: the loop turns."""
        return answer({"ok": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """The reasons are for those who see all; whether it is ready, for everyone (load balancers)."""
        ready, sentences = self.daemon.ready()
        try:
            told = sentences if self.scope.identify(request).whole else []
        except Refusal:
            told = []
        return answer({"ready": ready, "reasons": told}, 200 if ready else 503)

    async def status(self, request: web.Request) -> web.Response:
        """One pass over the live datasets."""
        return answer(await self.scope.status(who(request)))

    async def datasets(self, request: web.Request) -> web.Response:
        """``next`` goes into ``before`` for what follows; it is not there at the end."""
        fields = query(request)
        before = place_of(fields.pop("before", ""))
        found, last = await self.lookup.page(who(request), selection(fields), before)
        core, now = self.daemon.core, self.daemon.clock.now()
        more = {"next": place_text(last)} if last is not None else {}
        return answer({"datasets": [row(d, core, now) for d in found], "now_at": now} | more)

    async def dataset(self, request: web.Request) -> web.Response:
        dataset = await self.lookup.one(who(request), path_part(request, f"{API}/datasets/"))
        return answer({"dataset": record(dataset), "why": self.why_of(who(request), dataset)})

    async def facts(self, request: web.Request) -> web.Response:
        dataset = await self.lookup.one(who(request), path_part(request, f"{API}/datasets/"))
        reader = self.daemon.reader
        rows = await self.lookup.ask_journal(lambda: list(reader.facts(dataset.dataset_id)))
        facts = [{"sequence": number} | record(fact) for number, fact in rows]
        return answer({"dataset_id": dataset.dataset_id, "facts": facts})

    async def directives(self, request: web.Request) -> web.Response:
        """What its run is given; cost: the rules and the directives."""
        dataset = await self.lookup.one(who(request), path_part(request, f"{API}/datasets/"))
        found = self.directives_of(dataset)
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

    def directives_of(
        self, dataset: Dataset
    ) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]] | None:
        """``None`` where there are none.  Raises Refusal."""
        try:
            return self.daemon.core.directives(dataset)
        except Permanent as error:
            raise Refusal(422, str(error)) from None

    async def why(self, request: web.Request) -> web.Response:
        name, principal = path_part(request, f"{API}/why/"), who(request)
        try:
            dataset = await self.lookup.one(principal, name)
        except Refusal as refusal:
            lines = await self._why_ignored(principal, name) if refusal.status == 404 else []
            if not lines:
                raise
            return answer({"dataset_id": "", "name": name, "state": "ignored", "lines": lines})
        return answer(
            {
                "dataset_id": dataset.dataset_id,
                "name": dataset.tilt_series_name,
                "state": dataset.state.value,
                "lines": self.why_of(principal, dataset) + await self.scheduler(dataset),
            }
        )

    async def scheduler(self, dataset: Dataset) -> list[str]:
        """The scheduler's own words on a job that waits in its queue: one or two of its commands."""
        live = self.daemon.core.state.datasets.get(dataset.dataset_id)
        if live is None or live.state is not State.QUEUED or live.attempt is None or not live.attempt.job_id:
            return []
        return list(await self.daemon.plugged.scheduler_words(live.attempt.job_id))

    def why_of(self, principal: Principal, dataset: Dataset) -> list[str]:
        if dataset.dataset_id in self.daemon.core.state.datasets:
            lines = self.daemon.core.why(dataset.dataset_id, self.daemon.clock.now())
            return self.scope.without_others(principal, lines)
        return finished_story(dataset)

    async def _why_ignored(self, principal: Principal, name: str) -> list[str]:
        return [
            f"{entry['feed']}/{shown(entry['series_key'])} is no tilt series: "
            f"{entry['reason']}. {entry['detail']}"
            for entry in await self._ignored_series(principal, "")
            if name and name in (entry["series_key"], entry["series_key"].rpartition("/")[2])
        ]

    async def nodes(self, request: web.Request) -> web.Response:
        """Every node with who booked what; costs the bookings."""
        return answer({"nodes": self.scope.nodes(who(request)), "now_at": self.daemon.clock.now()})

    async def feeds(self, request: web.Request) -> web.Response:
        """One pass over the live datasets."""
        return answer({"feeds": self.scope.feeds(who(request))})

    async def ignored(self, request: web.Request) -> web.Response:
        fields = query(request)
        known_only(fields, {"feed"})
        return answer({"ignored": await self._ignored_series(who(request), fields.get("feed", ""))})

    async def acts(self, request: web.Request) -> web.Response:
        """What operators did, last first; ``next`` goes into ``before`` for what follows."""
        fields = query(request)
        known_only(fields, {"before", "limit"})
        limit = whole(fields.get("limit", "100"), "limit", 1, 1000)
        before = whole(fields["before"], "before", 0, 2**62) if fields.get("before") else None
        rows, last = await self.scope.acts(who(request), before, limit)
        acts = [{"sequence": number} | record(fact) for number, fact in rows]
        return answer({"acts": acts} | ({"next": last} if last is not None else {}))

    async def _ignored_series(self, principal: Principal, feed: str) -> list[dict[str, str]]:
        """What was opened in this feed, or in all (""), and is no tilt series; at most MAX_ROWS are told."""
        names = [each.name for each in self.daemon.settings.feeds if feed in ("", each.name)]
        reader = self.daemon.reader

        def read() -> list[dict[str, str]]:
            rows = ((name, seen) for name in names for seen in reader.ignored(name))
            found = [
                {"feed": name, "series_key": seen.series_key, "reason": seen.reason, "detail": seen.detail}
                for name, seen in rows
                if self.scope.sees_series(principal, name, seen.series_key)
            ]
            return found[:MAX_ROWS]

        return await self.lookup.ask_journal(read)
