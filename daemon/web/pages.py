"""The pages that are read: overview, list, one dataset, nodes, policy, errors, actions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.policy_files import files_of

from . import files
from .asked import known_only, path_part, place_of, place_text, query, selection, whole
from .catalogue import CLASSES, follows
from .drawing import Drawing
from .guard import who
from .page_data import PageData
from .refusal import Refusal
from .routes import Route
from .words import rule_in_words

T = TypeVar("T")
ROWS = 100
FILTERS = {"state", "feed", "project", "session", "text", "held", "before"}
GROUPS = (
    ("", "All"),
    ("arriving", "Arriving"),
    ("ready", "Waiting"),
    ("reserved,queued,running,collecting", "Running"),
    ("delivered", "Delivered"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
)
FAILED_LOOKED_AT = 500
FOLDER = "/datasets/"
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
)


class Pages:
    def __init__(self, data: PageData, drawing: Drawing) -> None:
        self.data = data
        self.drawing = drawing

    def routes(self) -> list[Route]:
        one = FOLDER + "{name:[^/]+}"
        return [
            Route("GET", "/", self.overview, "read"),
            Route("GET", "/datasets", self.datasets, "read"),
            Route("GET", one, self.dataset, "read"),
            Route("GET", one + "/pictures/{number:[0-9]{1,2}}", self.picture, "read"),
            Route("GET", one + "/report", self.report, "read"),
            Route("GET", one + "/attempts/{number:[0-9]{1,4}}/log", self.log, "read"),
            Route("GET", one + "/logs/{number:[0-9]{1,2}}", self.result_log, "read"),
            Route("GET", "/nodes", self.nodes, "read"),
            Route("GET", "/policy", self.policy, "whole"),
            Route("GET", "/errors", self.errors, "read"),
            Route("GET", "/acts", self.acts, "read"),
        ]

    def draw(self, request: web.Request, template: str, page: str, **values: Any) -> web.Response:
        principal = who(request)
        troubles = self.data.troubles(principal, policy=page != "policy")
        return self.drawing.page(
            request,
            principal,
            template,
            page=page,
            troubles=troubles,
            notice=self.drawing.notices.take(principal),
            **values,
        )

    async def overview(self, request: web.Request) -> web.Response:
        known_only(query(request), set())
        principal = who(request)
        shown = await self.data.overview(principal)
        return self.draw(
            request, "overview.html", "overview", breakers=self.data.breakers(principal), **shown
        )

    async def datasets(self, request: web.Request) -> web.Response:
        """A page of rows, however many datasets there are: those behind it are one link away."""
        fields = query(request)
        known_only(fields, FILTERS)
        principal = who(request)
        asked = {key: value for key, value in fields.items() if value and key != "before"}
        chosen = selection(asked | {"limit": ROWS})
        found, last = await self.data.lookup.page(principal, chosen, place_of(fields.get("before", "")))
        counted = Counter(d.state.value for d in self.data.scope.live(principal))
        counted += await self.data.scope.finished(principal)
        held = sum(bool(d.holds) for d in self.data.scope.live(principal))
        plain = {key: value for key, value in asked.items() if key not in ("state", "held")}
        groups = [
            (word, label, _address(plain | {"state": word}), _count(counted, word)) for word, label in GROUPS
        ]
        groups.append(("held", "Held", _address(plain | {"held": "yes"}), held))
        return self.draw(
            request,
            "datasets.html",
            "datasets",
            lines=[self.data.line(d) for d in found],
            groups=groups,
            asked={key: fields.get(key, "") for key in FILTERS},
            group="held" if chosen.held else fields.get("state", ""),
            first_page=not fields.get("before"),
            start=_address(asked),
            further=_address(asked | {"before": place_text(last)}) if last is not None else "",
            total=sum(counted.values()),
            feeds=[feed["name"] for feed in self.data.scope.feeds(principal)],
            projects=await self.data.projects(principal),
            here=_address(fields),
        )

    async def _one(self, request: web.Request) -> Dataset:
        return await self.data.lookup.one(who(request), path_part(request, FOLDER))

    async def dataset(self, request: web.Request) -> web.Response:
        """Costs its facts, and a look at two folders in a worker thread."""
        try:
            dataset = await self._one(request)
        except Refusal as refusal:
            if refusal.status != 409:
                raise
            return self._several(request, refusal)
        principal, data = who(request), self.data
        attempts = list(reversed(dataset.attempts))
        pictures, result_files, result_logs, has_report, scheduler, last_log = await asyncio.gather(
            data.pictures(dataset),
            data.result_files(dataset),
            data.result_logs(dataset),
            data.has_report(dataset),
            data.scheduler(dataset),
            data.log(attempts[0].attempt_id if attempts else ""),
        )
        core = data.daemon.core
        can = {
            action: not core.objection(action, dataset, {})
            for action in ("hold", "retry", "rerun", "cancel", "accept", "prioritize")
        }
        can |= {"release": bool(dataset.holds), "hold": can["hold"] and not dataset.hold("operator")}
        return self.draw(
            request,
            "dataset.html",
            "datasets",
            dataset=dataset,
            line=data.line(dataset),
            why=data.reading.why_of(principal, dataset) + scheduler,
            directives=data.directives(dataset),
            story=await data.story(principal, dataset),
            pictures=pictures,
            result_files=result_files,
            result_logs=result_logs,
            has_report=has_report,
            attempts=attempts,
            log=last_log.splitlines()[-40:] if last_log is not None else None,
            timings=[each for each in sorted(dataset.quality.items()) if each[0].endswith("seconds")],
            can=can,
            options=data.daemon.pipeline_options(dataset.pipeline),
        )

    def _several(self, request: web.Request, refusal: Refusal) -> web.Response:
        return self.draw(
            request, "several.html", "datasets", sentence=refusal.sentence, rows=refusal.more["candidates"]
        )

    async def _of_result(self, dataset: Dataset, read: Callable[[str], T | None]) -> T | None:
        """What ``read`` finds in the folder of a delivered result; ``None`` while there is none."""
        if not dataset.result_path or dataset.state is not State.DELIVERED:
            return None
        return await self.data.read_file(lambda: read(dataset.result_path), None)

    async def picture(self, request: web.Request) -> web.Response:
        """By its number among the pictures of a delivered result."""
        dataset = await self._one(request)
        number = int(request.match_info["number"])
        found = await self._of_result(dataset, lambda folder: files.picture(folder, number))
        if found is None:
            raise Refusal(404, "there is no such picture")
        kind, content = found
        headers = {"Content-Type": kind, "Cache-Control": "private, max-age=3600", "Vary": "Cookie"}
        return web.Response(body=content, headers=headers)

    async def report(self, request: web.Request) -> web.Response:
        """The result's ``report.html``.  It lies where others may write: it may show what is in it, and
        nothing else, as a stranger's page."""
        dataset = await self._one(request)
        content = await self._of_result(dataset, files.report)
        if content is None:
            raise Refusal(404, "there is no report (any more)")
        headers = {"Content-Security-Policy": REPORT_POLICY, "Vary": "Cookie"}
        return web.Response(body=content, content_type="text/html", charset="utf-8", headers=headers)

    async def log(self, request: web.Request) -> web.Response:
        """The end of one attempt's log, as plain text."""
        dataset = await self._one(request)
        number = int(request.match_info["number"])
        attempt = next((a for a in dataset.attempts if a.number == number), None)
        text = await self.data.log(attempt.attempt_id) if attempt is not None else None
        if text is None:
            raise Refusal(404, "there is no such log (any more)")
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def result_log(self, request: web.Request) -> web.Response:
        """The end of what a program of a delivered run said, by its number, as plain text."""
        dataset = await self._one(request)
        number = int(request.match_info["number"])
        text = await self._of_result(dataset, lambda folder: files.result_log(folder, number))
        if text is None:
            raise Refusal(404, "there is no such log (any more)")
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def nodes(self, request: web.Request) -> web.Response:
        known_only(query(request), set())
        return self.draw(request, "nodes.html", "nodes", nodes=self.data.nodes(who(request)))

    async def policy(self, request: web.Request) -> web.Response:
        known_only(query(request), set())
        return self.draw_policy(request)

    def draw_policy(self, request: web.Request, **more: Any) -> web.Response:
        daemon = self.data.daemon
        policy, outside = daemon.core.policy, daemon.metrics.outside
        values = {"candidate": "", "instead": False, "judged": None} | more
        return self.draw(
            request,
            "policy.html",
            "policy",
            policy=policy,
            accepted_at=outside.policy_accepted_at or None,
            refused=daemon.policy_refused,
            paths=[str(path) for path in files_of(daemon.settings)],
            rules=[rule_in_words(rule, policy.origins) for rule in msgspec.to_builtins(policy.rules)],
            shares=daemon.core.shares(self.data.now),
            **values,
        )

    async def errors(self, request: web.Request) -> web.Response:
        """The last failed ones (at most 500) by class, beside what each class means."""
        known_only(query(request), set())
        chosen = selection({"state": "failed", "limit": FAILED_LOOKED_AT})
        failed = await self.data.lookup.select(who(request), chosen)
        by_class: dict[str, list[Dataset]] = {}
        for dataset in failed:
            if dataset.failure is not None:
                by_class.setdefault(dataset.failure.failure_class, []).append(dataset)
        policy = self.data.daemon.core.policy
        classes = [
            {
                "name": each.name,
                "meaning": each.meaning,
                "remedy": each.remedy,
                "follows": follows(each.name, policy),
                "count": len(by_class.get(each.name, ())),
                "newest": by_class.get(each.name, [])[:3],
            }
            for each in CLASSES
        ]
        return self.draw(request, "errors.html", "errors", classes=classes, count=len(failed))

    async def acts(self, request: web.Request) -> web.Response:
        fields = query(request)
        known_only(fields, {"before"})
        before = whole(fields["before"], "before", 0, 2**62) if fields.get("before") else None
        rows, last = await self.data.scope.acts(who(request), before, ROWS)
        further = f"/acts?before={last}" if last is not None else ""
        return self.draw(request, "acts.html", "acts", rows=rows, further=further, first_page=before is None)


def _address(fields: dict[str, str]) -> str:
    some = {key: value for key, value in fields.items() if value}
    return "/datasets" + (f"?{urlencode(some, errors='surrogateescape')}" if some else "")


def _count(counted: Counter[str], word: str) -> int:
    return sum(counted[state] for state in word.split(",")) if word else sum(counted.values())
