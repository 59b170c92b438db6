"""HTTP over the daemon's unix socket, for the commands.  Standard library only: a command starts fast."""

from __future__ import annotations

import http.client
import json
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

TIMEOUT_SECONDS = 60.0
PLACES = ("tiltd.toml", "/etc/tiltd/tiltd.toml")
API = "/api/v1"


class NotRunning(Exception):
    """Nobody answers on the socket; the message says which was tried and how to start."""


class Answered(Exception):
    """The daemon refused, with a sentence.  ``body`` is the whole answer."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("error", f"the daemon answered with status {status}")))
        self.status, self.body = status, body


def config_file(given: str | None) -> Path | None:
    """--config, $TILTD_CONFIG, ./tiltd.toml, /etc/tiltd/tiltd.toml: the first that is named or is there."""
    if named := given or os.environ.get("TILTD_CONFIG"):
        return Path(named)
    return next((path for path in map(Path, PLACES) if path.is_file()), None)


def socket_path(socket_given: str | None, config_given: str | None) -> Path:
    """Where the daemon listens: --socket, else as the configuration says, read without validating it."""
    if socket_given:
        return Path(socket_given)
    raw: dict[str, Any] = {}
    path = config_file(config_given)
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NotRunning(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise NotRunning(f"{path}: is no TOML: {error}; `tiltd check` says more") from None
    listen = raw.get("listen")
    named = listen.get("socket") if isinstance(listen, dict) else None
    return Path(str(named or f"{raw.get('state_dir', '/var/lib/tiltd')}/tiltd.sock"))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("tiltd", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class Client:
    """Each question is one connection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, *parts: str, **fields: str) -> Any:
        """The JSON of ``/api/v1/PART/PART?field=value``.  Raises NotRunning, Answered."""
        target = "/".join([API, *(quote(part, safe="", errors="surrogateescape") for part in parts)])
        if query := urlencode({k: v for k, v in fields.items() if v}, errors="surrogateescape"):
            target += f"?{query}"
        return self._ask("GET", target)

    def post(self, part: str, body: Mapping[str, Any]) -> Any:
        """Raises NotRunning, Answered."""
        return self._ask("POST", f"{API}/{part}", json.dumps(body).encode("ascii"))

    def text(self, target: str) -> tuple[int, str]:
        """Status and text of what is no JSON, such as ``/metrics`` and ``/readyz``.  Raises NotRunning."""
        status, content = self._exchange("GET", target)
        return status, content.decode("utf-8", "replace")

    def _ask(self, method: str, target: str, body: bytes | None = None) -> Any:
        status, content = self._exchange(method, target, body)
        try:
            value = json.loads(content)
        except ValueError:
            raise NotRunning(f"what answers at {self.path} is no tiltd") from None
        if status >= 400:
            raise Answered(status, value if isinstance(value, dict) else {})
        return value

    def _exchange(self, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = _Connection(self.path)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(self._not_running(error)) from None
        finally:
            connection.close()

    def _not_running(self, error: Exception) -> str:
        if isinstance(error, PermissionError):
            return f"you may not use tiltd's socket {self.path}; ask to be in the group that owns it"
        if isinstance(error, TimeoutError):
            return f"tiltd did not answer within {TIMEOUT_SECONDS:g} s on {self.path}"
        return (
            f"the daemon is not running: nobody answers at {self.path}. Start it with `tiltd run` (or "
            "`systemctl start tiltd`), or say where it listens with --config FILE or --socket PATH"
        )
