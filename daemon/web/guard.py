"""What stands around every request: who asks, whether they may, how often, headers, errors as sentences."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from .access import Need, Principal
from .identity import Identity, is_unix
from .limits import Buckets
from .refusal import Refusal, answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Draw = Callable[[web.Request, int, str], web.Response]
"""A page for an error: request, status, sentence."""

WHO: Any = web.RequestKey("who", Principal) if hasattr(web, "RequestKey") else "who"
"""Where a request keeps its principal; aiohttp has typed keys since 3.14."""
MAX_BODY_BYTES = 1_000_000
BODY_SECONDS = 30.0
READS, READS_PER_SECOND = 300.0, 60.0
ACTS, ACTS_PER_SECOND = 60.0, 5.0
CSRF_HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD"})
NOBODY = Principal(name="nobody", via="open")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none, a form's Origin is "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """``middleware`` stands around everything; ``admitting`` around each handler, with what it needs."""

    def __init__(self, identity: Identity, now: Callable[[], float], draw: Draw) -> None:
        self.identity = identity
        self._draw = draw
        self._reads = Buckets(READS, READS_PER_SECOND, now)
        self._acts = Buckets(ACTS, ACTS_PER_SECOND, now)
        self._hosts = {"localhost", "tiltd", *_own_names(), *identity.access.hosts}

    def admitting(self, need: Need, handler: Handler) -> Handler:
        """The handler, for those who may.  It finds who asks by :func:`who`."""

        async def admitted(request: web.Request) -> web.StreamResponse:
            self._host(request)
            if request.method not in SAFE:
                self._same_origin(request)
            if need == "nothing":
                self._often(request, NOBODY)
            else:
                principal = self.identity.of(request)
                request[WHO] = principal
                self._often(request, principal)
                if not principal.may(need):
                    raise Refusal(403, _may_not(principal, need))
            return await handler(request)

        return admitted

    def _host(self, request: web.Request) -> None:
        """A name that is not ours is another site's, pointed at this machine to read through a browser.  Who
        brings a token is no such page, and that tiltd is alive may be known to all."""
        name = _host_name(request.headers.get("Host", ""))
        if name in self._hosts or _is_address(name) or request.path == "/healthz":
            return
        if not request.headers.get("Authorization", "").lower().startswith("bearer "):
            raise Refusal(421, "tiltd is not known by this name; add it to hosts in [access] of tiltd.toml")

    def _same_origin(self, request: web.Request) -> None:
        """What browsers say themselves of where a request began; programs say nothing.  Raises Refusal."""
        host = request.headers.get("Host", "")
        if self.identity.from_proxy(request):
            host = request.headers.get("X-Forwarded-Host", host)
        origin = request.headers.get("Origin")
        foreign = request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        if foreign or (origin is not None and _authority(origin) != host.lower()):
            raise Refusal(403, "this request began on a page of another site")

    def _often(self, request: web.Request, principal: Principal) -> None:
        if is_unix(request):
            return
        key = f"{principal.via}:{principal.name}:{self.identity.address(request)}"
        buckets = self._reads if request.method in SAFE else self._acts
        if wait := buckets.take(key):
            raise Refusal(
                429, f"too many requests; try again in {math.ceil(wait)} s", retry_after_seconds=wait
            )

    def forged(self, request: web.Request, given: str) -> None:
        """Raises Refusal unless the form or header brings back what this visit was given."""
        principal = who(request)
        if not principal.anchor or not self.identity.sessions.csrf_is_good(principal.anchor, given):
            raise Refusal(403, "the form is too old or not tiltd's own; load the page again")

    def api_forged(self, request: web.Request) -> None:
        """A bearer token is sent by programs, never by a browser of itself; a socket's peer is no browser.
        A session's cookie and a proxy's word come with every request of a browser, also a forged one."""
        principal = who(request)
        if principal.via == "socket" or (principal.via == "token" and not principal.anchor):
            return
        self.forged(request, request.headers.get(CSRF_HEADER, ""))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turns every way to fail into a sentence, and puts the headers on every answer."""
        response: web.StreamResponse
        try:
            response = await handler(request)
        except Refusal as refusal:
            response = self._told(request, refusal.status, refusal.sentence, refusal.more)
            if wait := refusal.more.get("retry_after_seconds"):
                response.headers["Retry-After"] = str(math.ceil(wait))
            if refusal.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="tiltd"'
        except web.HTTPRedirection as redirect:
            response = web.Response(
                status=redirect.status, headers={"Location": redirect.headers["Location"]}
            )
        except web.HTTPException as error:
            response = self._told(request, error.status, _http_sentence(error), {})
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        except Exception:  # a bug must cost this request only; the daemon goes on
            structlog.get_logger().exception("request failed", path=request.path)
            response = self._told(request, 500, "tiltd met a bug of its own; its log has the details", {})
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _told(self, request: web.Request, status: int, sentence: str, more: dict[str, Any]) -> web.Response:
        if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
            return answer({"error": sentence} | more, status)
        return self._draw(request, status, sentence)


def who(request: web.Request) -> Principal:
    """Who asks.  Every route that needs anything has it."""
    principal: Principal = request[WHO]
    return principal


def _may_not(principal: Principal, need: Need) -> str:
    who_it_is = f"{principal.name} ({principal.via})"
    if need in ("act", "act_whole") and not principal.acts:
        return f"{who_it_is} may read, not act; sign in with a token that may, or use tiltd's unix socket"
    return f"{who_it_is} sees some projects only; this is for those who see all"


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]} - {""}


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return "null"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _http_sentence(error: web.HTTPException) -> str:
    return {
        404: "there is nothing at this address; the API begins with /api/v1/",
        405: "this address does not take this method",
        413: f"the request is larger than {MAX_BODY_BYTES} bytes",
    }.get(error.status, error.reason)


async def body_text(request: web.Request) -> str:
    """The body, which has to be there in good time.  Raises Refusal."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.text()
    except TimeoutError:
        raise Refusal(408, f"the request's body did not come within {BODY_SECONDS:g} s") from None
    except (UnicodeDecodeError, LookupError):
        raise Refusal(400, "the request's body is no text") from None


async def json_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object, or a Refusal that says what is wrong with it."""
    try:
        body = json.loads(await body_text(request))
    except (ValueError, RecursionError):
        raise Refusal(400, "the request's body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the request's body must be a JSON object")
    return body
