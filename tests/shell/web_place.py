"""Servers over TCP with tokens of every kind, and what a browser and a proxy bring along."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from yarl import URL

from shell.web_scene import SECRET
from tiltd.daemon.web import Servers

MINE = "TS_04-00000004.1.1"
THEIRS = f"{SECRET}_04-00000004.1.1"
Opened = Callable[..., Awaitable["Place"]]


class Place:
    """Servers over TCP, with tokens of every kind."""

    def __init__(self, daemon: Any, servers: Servers) -> None:
        self.daemon, self.servers = daemon, servers
        assert servers.room is not None
        self.room = servers.room
        self.tokens = self.room.identity.tokens
        self.base = f"http://127.0.0.1:{servers.port}"
        self.own = self.tokens.add("apo", "read", ["apoferritin"], 1.0)
        self.own_act = self.tokens.add("apo-act", "act", ["apoferritin"], 1.0)
        self.all_read = self.tokens.add("reader", "read", [], 1.0)
        self.all_act = self.tokens.add("ada", "act", ["*"], 1.0)

    async def ask(
        self, method: str, path: str, token: str = "", headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, str, Any]:
        headers = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            address = URL(self.base + path, encoded=True)
            async with session.request(
                method, address, headers=headers, allow_redirects=False, **more
            ) as response:
                return response.status, (await response.read()).decode("utf-8", "replace"), response.headers

    async def get(self, path: str, token: str = "", **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text, _ = await self.ask("GET", path, token, named)
        return status, text

    async def act(self, body: Any, token: str, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text, _ = await self.ask("POST", "/api/v1/actions", token, named, json=body)
        return status, json.loads(text)

    async def signed_in(self, token: str) -> tuple[dict[str, str], str]:
        """The cookie's header, and what the forms of that visit bring back."""
        _, page = await self.get("/login", Accept="text/html")
        fields = {"csrf": csrf(page), "token": token, "to": "/nodes"}
        status, _, headers = await self.ask("POST", "/login", data=fields)
        assert (status, headers["Location"]) == (303, "/nodes")
        cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
        _, page, _ = await self.ask("GET", "/", headers=cookie)
        return cookie, csrf(page)


def csrf(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found, page
    return found[1]


PROXY = """
proxy_from = ["127.0.0.1/32"]
proxy_secret_file = "{secret}"
[[access.group]]
name = "apo-users"
projects = ["apoferritin"]
[[access.group]]
name = "staff"
rights = "act"
"""


def vouched(user: str, groups: str, **more: str) -> dict[str, str]:
    found = {"X-Forwarded-User": user, "X-Forwarded-Groups": groups}
    return found | {"X-Tiltd-Proxy-Secret": "a-long-shared-secret"} | more
