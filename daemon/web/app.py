"""The aiohttp application: every room's routes, each behind the guard with what it needs."""

from __future__ import annotations

from aiohttp import web

from .acting import Acting
from .drawing import Drawing
from .forms import Forms
from .guard import MAX_BODY_BYTES, Guard
from .hub import Hub
from .identity import Identity
from .lookup import Lookup
from .openapi import document
from .page_data import PageData
from .pages import Pages
from .pruning import Pruning
from .reading import Reading
from .refusal import answer
from .routes import API, Route
from .signing import Signing
from .statics import Statics
from .telling import Telling
from .view import Daemon

LINE_BYTES_MAX = 8190
STREAMS = frozenset({f"{API}/events"})


class Room:
    """The whole of the web room around one daemon.  ``hub`` is told what changed.

    Raises OSError (with a sentence) for a proxy's secret that cannot be read.
    """

    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        now = daemon.clock.now
        self.identity = Identity(daemon.settings, now)
        self.drawing = Drawing(daemon, self.identity)
        self.guard = Guard(self.identity, now, self.drawing.error)
        self.hub = Hub(self.identity)
        reading = Reading(daemon, lookup)
        reading.scope.identity = self.identity
        acting = Acting(daemon, lookup, self.guard)
        self.data = data = PageData(daemon, lookup, reading)
        self.rooms = (
            reading,
            acting,
            Pruning(daemon, lookup),
            Telling(daemon, lookup),
            self.hub,
            Signing(self.identity, self.guard, self.drawing),
            Pages(data, self.drawing),
            Forms(data, acting, self.guard, self.drawing),
            Statics(),
        )

    def routes(self) -> list[Route]:
        """All of them, the description of the API included."""
        routes = [route for room in self.rooms for route in room.routes()]

        async def openapi(request: web.Request) -> web.Response:
            return answer(document())

        return [*routes, Route("GET", f"{API}/openapi.json", openapi, "read")]

    def app(self) -> web.Application:
        limits = {"max_line_size": LINE_BYTES_MAX, "max_field_size": LINE_BYTES_MAX}
        app = web.Application(
            middlewares=[self.guard.middleware], client_max_size=MAX_BODY_BYTES, handler_args=limits
        )
        for route in self.routes():
            if route.method == "GET" and route.path not in STREAMS:
                app.router.add_route("HEAD", route.path, self.guard.admitting(route.need, route.handler))
            app.router.add_route(route.method, route.path, self.guard.admitting(route.need, route.handler))
        return app


def make_app(daemon: Daemon, lookup: Lookup) -> web.Application:
    """One application for all doors: what may be done is a matter of who asks."""
    return Room(daemon, lookup).app()
