"""GET over the daemon's unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote


class NotReachable(Exception):
    """The daemon does not answer on its socket.  The message is for a person."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One connection a question; answers are small."""

    def __init__(self, path: Path, timeout_seconds: float = 10.0) -> None:
        self._path, self._timeout_seconds = path, timeout_seconds

    def get(self, target: str) -> tuple[int, bytes]:
        """HTTP status and body.  Raises NotReachable."""
        connection = _Connection(self._path, self._timeout_seconds)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(f"The daemon does not answer on {self._path}: {error}") from None
        finally:
            connection.close()

    def json(self, *parts: str) -> Any:
        """The answer to ``/api/v1/PART/PART...``, ``None`` when there is none (404).  Raises NotReachable."""
        target = "/".join(["/api/v1", *(quote(part, safe="", errors="surrogateescape") for part in parts)])
        status, body = self.get(target)
        if status == 404:
            return None
        if status != 200:
            raise NotReachable(f"The daemon answers {target} with status {status}")
        return json.loads(body)

    def ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except NotReachable:
            return False
