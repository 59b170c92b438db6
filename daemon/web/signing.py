"""Signing in with a token, and out."""

from __future__ import annotations

from aiohttp import web

from .access import Principal
from .drawing import Drawing
from .guard import Guard, body_text
from .identity import COOKIE, Identity, is_unix
from .posted import pairs
from .refusal import Refusal
from .routes import Route
from .sessions import SESSION_SECONDS

FORM_ANCHOR = "signing in"


class Signing:
    def __init__(self, identity: Identity, guard: Guard, drawing: Drawing) -> None:
        self.identity = identity
        self.guard = guard
        self.drawing = drawing

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/login", self.ask, "nothing"),
            Route("POST", "/login", self.sign_in, "nothing"),
            Route("POST", "/logout", self.sign_out, "read"),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        return self._drawn(request)

    async def sign_in(self, request: web.Request) -> web.Response:
        fields = dict(pairs(await body_text(request)))
        if not self.identity.sessions.csrf_is_good(FORM_ANCHOR, fields.get("csrf", "")):
            raise Refusal(403, "the form is too old or not tiltd's own; load the page again")
        if is_unix(request):
            raise Refusal(400, "on the unix socket you are signed in already")
        try:
            session_id = self.identity.sign_in(request, fields.get("token", ""))
        except Refusal as refusal:
            if refusal.status != 401:
                raise
            return self._drawn(request, refusal.sentence, 401)
        response = web.Response(status=303, headers={"Location": _inside(fields.get("to", "/"))})
        response.set_cookie(
            COOKIE,
            session_id,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="Strict",
            secure=self.identity.is_https(request),
            path="/",
        )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        self.guard.forged(request, dict(pairs(await body_text(request))).get("csrf", ""))
        self.identity.sessions.end(request.cookies.get(COOKIE, ""))
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(COOKIE, path="/")
        return response

    def _drawn(self, request: web.Request, trouble: str = "", status: int = 200) -> web.Response:
        nobody = Principal(name="", via="open", anchor="")
        return self.drawing.page(
            request,
            nobody,
            "login.html",
            status=status,
            trouble=trouble,
            form_csrf=self.identity.sessions.csrf(FORM_ANCHOR),
            to=_inside(request.query.get("to", "/")),
        )


def _inside(address: str) -> str:
    """A path of this site: nobody is sent on to another one."""
    path_only = address.startswith("/") and not address.startswith(("//", "/\\"))
    plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if path_only and plain and len(address) < 500 else "/"
