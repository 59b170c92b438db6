"""Pages as HTML: jinja2 with escaping always on, and names that come from outside made printable first."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from aiohttp import web
from markupsafe import Markup

from tiltd.daemon.core.units import show_bytes, show_seconds
from tiltd.daemon.text import one_line, shown

from .access import Principal
from .identity import Identity, is_unix
from .notices import Notices
from .refusal import Refusal
from .statics import versions
from .view import Daemon
from .words import in_words

if TYPE_CHECKING:
    import jinja2

NAV = (
    ("overview", "/", "Overview"),
    ("datasets", "/datasets", "Datasets"),
    ("nodes", "/nodes", "Nodes"),
    ("policy", "/policy", "Policy"),
    ("errors", "/errors", "Errors"),
    ("acts", "/acts", "Actions"),
)
WHOLE_ONLY = frozenset({"policy"})


class Drawing:
    """``page`` draws a template for one who asks; every page has who that is, and what they may."""

    def __init__(self, daemon: Daemon, identity: Identity) -> None:
        self.daemon = daemon
        self.identity = identity
        self.notices = Notices()
        self._files = versions()

    def page(
        self, request: web.Request, principal: Principal, template: str, status: int = 200, **values: Any
    ) -> web.Response:
        csrf = self.identity.sessions.csrf(principal.anchor) if principal.anchor else ""
        drawn = environment().get_template(template)
        text = drawn.render(
            who=principal,
            csrf=csrf,
            files=self._files,
            nav=[each for each in NAV if principal.whole or each[0] not in WHOLE_ONLY],
            signed_in=principal.via == "token",
            may_sign_in=principal.via == "open" and not is_unix(request),
            now=self.daemon.clock.now(),
            **values,
        )
        headers = {"Vary": "Cookie"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)

    def error(self, request: web.Request, status: int, sentence: str) -> web.Response:
        """For people; whom it is drawn for may not be known."""
        try:
            principal = self.identity.of(request)
        except Refusal:
            principal = Principal(name="", via="open")
        return self.page(
            request,
            principal,
            "error.html",
            status=status,
            page="",
            sentence=sentence,
            code=status,
            to=request.raw_path if request.method == "GET" else "/",
        )


@functools.cache
def environment() -> jinja2.Environment:
    """Made when the first page is asked for: where only programs ask, a megabyte is not spent on it."""
    import jinja2

    folder = resources.files("tiltd.daemon.web").joinpath("templates")

    def source(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "n": lambda name: shown(str(name)),
        "line": lambda sentence: one_line(str(sentence)),
        "size": show_bytes,
        "span": lambda seconds: show_seconds(round(seconds)),
        "instant": instant,
        "words": in_words,
        "value": lambda value: ("no", "yes")[value] if isinstance(value, bool) else shown(str(value)),
        "figure": lambda value: f"{value:.4g}",
    }
    return made


def instant(at: float | None) -> Markup:
    """A time as everybody can read it, in UTC; the script tells it in the reader's own zone."""
    if at is None or not 0 <= at < 4e10:
        return Markup("–")
    when = datetime.fromtimestamp(at, UTC)
    machine, human = when.strftime("%Y-%m-%dT%H:%M:%SZ"), when.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(machine, human)
