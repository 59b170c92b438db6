"""Style, script and icon of the pages: a table of files that ship with tiltd; no other path leads to one."""

from __future__ import annotations

import hashlib
from importlib import resources

from aiohttp import web

from .refusal import Refusal
from .routes import Route

TYPES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def content(name: str) -> bytes:
    """Raises KeyError for what is not in the table."""
    if name not in TYPES:
        raise KeyError(name)
    return resources.files("tiltd.daemon.web").joinpath("static", name).read_bytes()


class Statics:
    """Read once.  The address bears a hash of the content, so browsers may keep it."""

    def __init__(self) -> None:
        self._files = {name: content(name) for name in TYPES}

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/static/{version:[0-9a-f]{8}}/{name:[a-z.]+}", self.file, "nothing"),
            Route("GET", "/favicon.ico", self.icon, "nothing"),
        ]

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._files:
            raise Refusal(404, "there is no such file")
        return web.Response(
            body=self._files[name],
            headers={
                "Content-Type": f"{TYPES[name]}; charset=utf-8",
                "Cache-Control": "public, max-age=31536000, immutable",
            },
        )

    async def icon(self, request: web.Request) -> web.Response:
        return web.Response(body=self._files["icon.svg"], headers={"Content-Type": TYPES["icon.svg"]})


def versions() -> dict[str, str]:
    """Name -> address."""
    return {name: f"/static/{hashlib.sha256(content(name)).hexdigest()[:8]}/{name}" for name in TYPES}
