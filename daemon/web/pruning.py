"""POST /api/v1/prune: what would go, or is removed.  Files are looked at in a worker thread."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from typing import Any

from aiohttp import web

from tiltd.daemon import prune
from tiltd.daemon.core.model import TERMINAL
from tiltd.daemon.spool import Spool

from .guard import json_body, who
from .identity import peer_name
from .lookup import MAX_ROWS, Lookup
from .noting import note
from .refusal import Refusal, answer
from .routes import API, Route
from .view import Daemon, record

KINDS = ("spool", "attempts", "imports", "journal", "results")
FIELDS = {"what", "datasets", "older_than_seconds", "dry_run"}


class Pruning:
    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup
        self._spool = Spool(daemon.settings.spool_dir)

    def routes(self) -> list[Route]:
        return [Route("POST", f"{API}/prune", self.removals, "act_whole")]

    async def removals(self, request: web.Request) -> web.Response:
        """``what``: kinds; ``datasets``: for ``results`` only, by name.  A dry run unless told not to.  On
        the unix socket only: what is removed is gone."""
        peer_name(request)
        what, names, older_than_seconds, dry_run = _checked(await json_body(request))
        before_at = self.daemon.clock.now() - older_than_seconds
        principal = who(request)
        found = await self._found(what, before_at)
        if "results" in what:
            for name in names:
                dataset = await self.lookup.one(principal, name)
                found.append(await asyncio.to_thread(prune.result, dataset))
        if not dry_run and found:
            # Before anything goes: what is removed is gone, and so would be who did it.
            noted, trouble = await note(self.daemon, principal, "prune", _told(found, names))
            if not noted:
                raise Refusal(503, f"nothing was removed: {trouble}")
            found = await self._remove(found)
        return answer({"dry_run": dry_run, "found": [record(each) for each in found]})

    async def _found(self, what: set[str], before_at: float) -> list[prune.Prunable]:
        state, reader = self.daemon.core.state, self.daemon.reader
        live = set(state.datasets)
        booked = {reservation.attempt_id for reservation in state.ledger.reservations()}
        found: list[prune.Prunable] = []
        if what & {"spool", "attempts"}:
            failed_too = "attempts" in what
            found += await self.lookup.ask_journal(
                lambda: prune.attempts(self._spool, live, booked, reader.dataset, before_at, failed_too)
            )
        if "imports" in what:
            for folder in {str(feed.import_dir) for feed in self.daemon.settings.feeds if feed.import_dir}:
                found += await self.lookup.ask_journal(
                    functools.partial(prune.imports, folder, live, reader.dataset, before_at)
                )
        if "journal" in what:
            ended = [state.value for state in TERMINAL]
            rows = await self.lookup.ask_journal(lambda: list(reader.select(states=ended, limit=MAX_ROWS)))
            found += prune.stories(rows, live, before_at)
        return found

    async def _remove(self, found: list[prune.Prunable]) -> list[prune.Prunable]:
        files = [each for each in found if each.what != "story"]
        stories = [each for each in found if each.what == "story"]
        removed = await asyncio.to_thread(lambda: [prune.remove(each, self._spool) for each in files])
        if stories:
            await self.daemon.prune_journal([each.dataset_id for each in stories])
        return removed + [prune.done(each) for each in stories]


def _told(found: list[prune.Prunable], names: list[str]) -> str:
    """``3 attempt, 1 result to be removed (results of TS_01)``."""
    kinds = Counter(each.what for each in found)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"to be removed: {told}" + (f" (of {', '.join(names)})" if names else "")[:1000]


def _checked(body: dict[str, Any]) -> tuple[set[str], list[str], float, bool]:
    if unknown := sorted(set(body) - FIELDS):
        raise Refusal(400, f"unknown field {unknown[0]!r}; known: {', '.join(sorted(FIELDS))}")
    what, names = body.get("what", []), body.get("datasets", [])
    older, dry_run = body.get("older_than_seconds", 30 * 86400), body.get("dry_run", True)
    if not isinstance(what, list) or not what or not all(kind in KINDS for kind in what):
        raise Refusal(400, f"what must be a list of {', '.join(KINDS)}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refusal(400, "datasets must be a list of ids or names")
    if ("results" in what) != bool(names):
        raise Refusal(400, "published results are removed only of datasets that are named, and only those")
    if isinstance(older, bool) or not isinstance(older, int | float) or not 0 <= older <= 1e10:
        raise Refusal(400, "older_than_seconds must be a number, 0 or more")
    if not isinstance(dry_run, bool):
        raise Refusal(400, "dry_run must be true or false")
    return set(what), names, float(older), dry_run
