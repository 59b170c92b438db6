"""One line of the router: method, path, handler, and what it needs of who asks."""

from __future__ import annotations

from typing import NamedTuple

from .access import Need
from .guard import Handler


class Route(NamedTuple):
    method: str
    path: str
    handler: Handler
    need: Need


API = "/api/v1"
