"""GET notices: what people are to be told, what they were told lately, and what does not get through."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tiltd.daemon.core.model import Notice

from .asked import known_only, query, whole
from .lookup import Lookup
from .refusal import answer
from .routes import API, Route
from .view import Daemon

LATELY = 50


class Telling:
    """For those who see all projects: a list of notices names who is told of what."""

    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup

    def routes(self) -> list[Route]:
        return [Route("GET", f"{API}/notices", self.notices, "whole")]

    async def notices(self, request: web.Request) -> web.Response:
        """Costs the notices due, the digests put by, and the lines asked for of those sent."""
        fields = query(request)
        known_only(fields, {"limit"})
        limit = whole(fields.get("limit", str(LATELY)), "limit", 1, 1000)
        board = self.daemon.core.state.board
        due = [self._due(notice, to) for notice in board.notices.values() for to in notice.to]
        digests = [
            {
                "rule": each.rule,
                "to": list(each.to),
                "feed": each.feed,
                "project": each.project,
                "session": each.session,
                "since_at": each.since_at,
                "came_in": each.came_in,
                "delivered": each.delivered,
                "needs_a_person": len(each.items) + each.more,
            }
            for each in board.digests.values()
        ]
        gathered = [
            {
                "event": each.event,
                "to": each.to,
                "project": each.project,
                "count": len(each.items) + each.more,
                "until_at": each.until_at,
            }
            for each in board.gathered.values()
        ]
        reader = self.daemon.reader
        told = await self.lookup.ask_journal(lambda: reader.told(limit))
        lately = [
            {
                "at": fact.at,
                "notice_id": fact.notice_id,
                "to": fact.to or "log",
                "sent": not hasattr(fact, "reason"),
                "reason": str(getattr(fact, "reason", "")),
            }
            for fact in told
        ]
        now_at = self.daemon.clock.now()
        return answer(
            {"due": due, "digests": digests, "gathered": gathered, "lately": lately, "now_at": now_at}
        )

    def _due(self, notice: Notice, to: str) -> dict[str, Any]:
        troubles = self.daemon.core.notice_troubles(notice.notice_id, to)
        return {
            "notice_id": notice.notice_id,
            "event": notice.event,
            "summary": notice.summary,
            "to": to,
            "project": notice.project,
            "due_at": notice.due_at,
            "trouble": troubles[0] if troubles else "",
        }
