"""What stands around every request: who asks, headers, errors as sentences."""

from __future__ import annotations

import json
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 1_000_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is answered with a sentence.  ``more`` is added to the JSON."""

    def __init__(self, status: int, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.more = status, sentence, more


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON in ASCII, so that names with lone surrogates pass."""
    return web.Response(
        text=json.dumps(value, ensure_ascii=True), status=status, content_type="application/json"
    )


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every way to fail into {error: sentence}, and puts the headers on every answer."""
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = answer({"error": refusal.sentence} | refusal.more, refusal.status)
    except web.HTTPException as error:
        response = answer({"error": _http_sentence(error)}, error.status)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    except Exception:  # a bug must cost this request only; the daemon goes on
        structlog.get_logger().exception("request failed", path=request.path)
        response = answer({"error": "tiltd met a bug of its own; its log has the details"}, 500)
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


def _http_sentence(error: web.HTTPException) -> str:
    return {
        404: "there is nothing at this address; the API begins with /api/v1/",
        405: "this address does not take this method",
        413: f"the request is larger than {MAX_BODY_BYTES} bytes",
    }.get(error.status, error.reason)


def peer_name(request: web.Request) -> str:
    """The user at the other end of the unix socket, as the kernel tells (SO_PEERCRED)."""
    connection = request.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        raise Refusal(403, "actions are taken on tiltd's own unix socket only")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


async def json_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object, or a Refusal that says what is wrong with it."""
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError, LookupError):
        raise Refusal(400, "the request's body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the request's body must be a JSON object")
    return body
