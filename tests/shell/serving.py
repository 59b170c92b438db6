"""Servers in a thread of their own, for clients that are no coroutines: browsers, schemathesis."""

from __future__ import annotations

import asyncio
import http.client
import threading
from types import TracebackType
from typing import Any

import structlog

from tiltd.daemon.web import Servers
from tiltd.daemon.web.app import Room


class Serving:
    """A context: listening inside it.  ``token`` is one that may everything."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.servers = Servers(daemon)
        self.token = ""
        self._logged: list[dict[str, Any]] = []

    def __enter__(self) -> Serving:
        self.thread.start()
        self._run(self.servers.start())
        self.token = self.room.identity.tokens.add("ada", "act", [], 1.0)
        structlog.configure(processors=[self._keep])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        structlog.reset_defaults()
        self._run(self.servers.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    @property
    def room(self) -> Room:
        assert self.servers.room is not None
        return self.servers.room

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.servers.port}"

    def token_for(self, name: str, project: str) -> str:
        return self.room.identity.tokens.add(name, "read", [project], 1.0)

    def changed(self, *datasets: Any) -> None:
        """As the daemon tells after an append."""
        self.loop.call_soon_threadsafe(self.servers.changed, datasets)

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.servers.port, timeout=10)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        connection.close()
        return response.status, text

    def errors(self) -> list[dict[str, Any]]:
        """What was logged as a bug."""
        return [event for event in self._logged if event.get("level") == "error" or "exc_info" in event]

    def _keep(self, logger: Any, method: str, event: Any) -> Any:
        self._logged.append({"level": method} | dict(event))
        raise structlog.DropEvent

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)
