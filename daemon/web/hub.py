"""Server-sent events: that something changed, for those who may see it.  What, the page asks for itself.

A listener that does not read costs a bounded set of ids; beyond that it is told "many".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tiltd.daemon.core.model import Dataset

from .access import Principal
from .guard import who
from .identity import Identity
from .refusal import Refusal
from .routes import API, Route

LISTENERS_MAX = 200
LISTENERS_EACH_MAX = 12
IDS_MAX = 200
GATHER_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0


class _Listener:
    def __init__(self, request: web.Request, principal: Principal, key: str) -> None:
        self.request = request
        self.principal = principal
        self.key = key
        self.changed: dict[str, str] = {}
        self.many = self.nodes = self.closed = False
        self.news = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Its browser has left; nobody tells us before we write."""
        return self.request.transport is None or self.request.transport.is_closing()

    def take(self) -> dict[str, Any]:
        told: dict[str, Any] = {"datasets": self.changed, "many": self.many, "nodes": self.nodes}
        self.changed, self.many, self.nodes = {}, False, False
        self.news.clear()
        return told


class Hub:
    """``publish`` in the event loop's thread; it costs the listeners times the changed datasets."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._listeners: dict[_Listener, None] = {}

    def routes(self) -> list[Route]:
        return [Route("GET", f"{API}/events", self.events, "read")]

    def publish(self, changed: Iterable[Dataset], nodes: bool = False) -> None:
        """These datasets are not what they were; ``nodes``: nor are the nodes."""
        changed = tuple(changed)
        if not changed and not nodes:
            return
        for listener in self._listeners:
            mine = {d.dataset_id: d.state.value for d in changed if listener.principal.sees(d)}
            if len(listener.changed) + len(mine) > IDS_MAX:
                listener.many, mine = True, {}
            listener.changed.update(mine)
            listener.nodes = listener.nodes or nodes
            if mine or listener.many or nodes:
                listener.news.set()

    def close(self) -> None:
        """The daemon stops: every stream ends."""
        for listener in list(self._listeners):
            self._end(listener)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``change`` with {datasets: {id: state}, many, nodes}, at most one a second; until one side goes."""
        listener = self._admit(request)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        self._listeners[listener] = None
        try:
            await response.prepare(request)
            await response.write(b"retry: 5000\n: hello\n\n")
            while not listener.closed:
                await self._tell(request, response, listener)
        except (ConnectionError, Refusal):
            pass  # they left, or may no longer
        finally:
            self._listeners.pop(listener, None)
        return response

    def _admit(self, request: web.Request) -> _Listener:
        """Those that left make room; else the oldest page of the same reader."""
        principal = who(request)
        key = f"{principal.via}:{principal.name}:{self.identity.address(request)}"
        for listener in [each for each in self._listeners if each.gone]:
            self._end(listener)
        theirs = [each for each in self._listeners if each.key == key]
        if len(theirs) >= LISTENERS_EACH_MAX:
            self._end(theirs[0])
        elif len(self._listeners) >= LISTENERS_MAX:
            raise Refusal(429, "too many pages are open; close some", retry_after_seconds=30.0)
        return _Listener(request, principal, key)

    def _end(self, listener: _Listener) -> None:
        listener.closed = True
        listener.news.set()
        self._listeners.pop(listener, None)

    async def _tell(self, request: web.Request, response: web.StreamResponse, listener: _Listener) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await listener.news.wait()
        except TimeoutError:
            self._still(request, listener)
            await response.write(b": still here\n\n")
            return
        if listener.closed:
            return
        await asyncio.sleep(GATHER_SECONDS)
        self._still(request, listener)
        text = json.dumps(listener.take(), ensure_ascii=True)
        await response.write(f"event: change\ndata: {text}\n\n".encode("ascii"))

    def _still(self, request: web.Request, listener: _Listener) -> None:
        """A revoked token hears no more; one that was changed, nothing from before.  Raises Refusal."""
        principal = self.identity.of(request)
        if principal != listener.principal:
            listener.take()
            listener.principal = principal
