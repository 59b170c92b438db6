"""HTTP: all of the API on a unix socket, and what only reads on a loopback address."""

from .app import make_app
from .server import Servers
from .view import Daemon

__all__ = ["Daemon", "Servers", "make_app"]
