"""The aiohttp application: the same one twice, with and without the handlers that act."""

from __future__ import annotations

from aiohttp import web

from .acting import Acting
from .guard import MAX_BODY_BYTES, guard
from .lookup import Lookup
from .pruning import Pruning
from .reading import Reading
from .view import Daemon


def make_app(daemon: Daemon, lookup: Lookup, acting: bool) -> web.Application:
    """``acting`` only for the unix socket."""
    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.add_routes(Reading(daemon, lookup).routes())
    if acting:
        app.add_routes(Acting(daemon, lookup).routes())
        app.add_routes(Pruning(daemon, lookup).routes())
    return app
