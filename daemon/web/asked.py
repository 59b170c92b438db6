"""What stands in a request: names in its path, its query, a selection.  Everything here raises Refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tiltd.daemon.core.model import State

from .lookup import MAX_ROWS, Place, Selection
from .refusal import Refusal

TEXT_MAX = 300
SELECTS = {"state", "feed", "project", "session", "name", "text", "held", "limit"}


def path_part(request: web.Request, behind: str) -> str:
    """The part of the path behind this prefix, bytes that are no UTF-8 as ``os.fsdecode`` gives them."""
    raw = request.raw_path.partition("?")[0].removeprefix(behind).partition("/")[0]
    return unquote(raw, errors="surrogateescape")


def query(request: web.Request) -> dict[str, str]:
    raw = request.raw_path.partition("?")[2]
    try:
        return dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=32))
    except ValueError:
        raise Refusal(400, "the address has too many parameters") from None


def known_only(fields: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(fields) - known):
        raise Refusal(400, f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}")


def selection(fields: Mapping[str, Any]) -> Selection:
    """From the query of a GET or the ``selection`` of an action."""
    known_only(fields, SELECTS)
    texts = {key: fields.get(key, "") for key in SELECTS - {"limit"}}
    if any(not isinstance(value, str) or len(value) > TEXT_MAX for value in texts.values()):
        raise Refusal(400, f"a selection's fields are texts of at most {TEXT_MAX} characters")
    try:
        states = tuple(State(word) for word in texts.pop("state").split(",") if word)
    except ValueError as error:
        raise Refusal(400, f"{error}; states are {', '.join(State)}") from None
    if texts["held"] not in ("", "yes"):
        raise Refusal(400, "held is yes, or not given")
    held = bool(texts.pop("held"))
    limit = whole(str(fields.get("limit", 500)), "limit", 1, MAX_ROWS)
    return Selection(states=states, held=held, limit=limit, **texts)


def whole(text: str, what: str, least: int, most: int) -> int:
    """A whole number between these."""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not least <= int(text) <= most:
        raise Refusal(400, f"{what} must be a whole number from {least} to {most}")
    return int(text)


def place_of(text: str) -> Place | None:
    """``SECONDS~DATASET``, as :func:`place_text` writes it; nothing for ""."""
    if not text:
        return None
    at, _, dataset_id = text.partition("~")
    try:
        return float(at), dataset_id[:TEXT_MAX]
    except ValueError:
        raise Refusal(400, "before is no place in a list; take the one that the page before gave") from None


def place_text(place: Place) -> str:
    return f"{place[0]!r}~{place[1]}"
