"""What operators do from the page: every form brings back what its visit was given, and tells the outcome.

A rerun's options are drawn from what the pipeline itself declares (name, default, limits, choices, meaning),
so that a pipeline with a thousand directives and one with three have the same form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast, get_args

from aiohttp import web

from tiltd.daemon.core.model import Dataset, Options
from tiltd.daemon.core.observations import Action

from .acting import Acting, Wish, batched
from .asked import path_part, whole
from .drawing import Drawing
from .guard import Guard, body_text, who
from .limits import Buckets
from .page_data import PageData
from .pages import FOLDER, Pages
from .posted import pairs
from .refusal import Refusal
from .routes import Route
from .view import OptionView

ON_ONE = tuple(action for action in get_args(Action) if action != "close_breaker")
ON_MANY = ("hold", "release", "retry", "cancel", "accept")
PREFIX = "option."
DIRECTIVES_MAX = 20_000
REASON_MAX = 1000
MANY_MAX = 200
TRIES, TRIES_PER_SECOND = 6.0, 0.2


class Forms:
    def __init__(self, data: PageData, acting: Acting, guard: Guard, drawing: Drawing) -> None:
        self.data = data
        self.acting = acting
        self.guard = guard
        self.drawing = drawing
        self.pages = Pages(data, drawing)
        self._tries = Buckets(TRIES, TRIES_PER_SECOND, data.daemon.clock.now)

    def routes(self) -> list[Route]:
        return [
            Route("POST", FOLDER + "{name:[^/]+}/act", self.act, "act"),
            Route("POST", "/act", self.act_on_many, "act"),
            Route("POST", "/breaker", self.close_breaker, "act_whole"),
            Route("POST", "/policy/reload", self.reload_policy, "act_whole"),
            Route("POST", "/policy", self.try_policy, "whole"),
        ]

    async def _fields(self, request: web.Request) -> list[tuple[str, str]]:
        fields = pairs(await body_text(request))
        self.guard.forged(request, dict(fields).get("csrf", ""))
        return fields

    def _tell(self, request: web.Request, ok: bool, sentences: Sequence[str], to: str) -> web.Response:
        """What became of it is told once, on the page that follows."""
        self.drawing.notices.put(who(request), ok, sentences)
        return web.Response(status=303, headers={"Location": to})

    async def act(self, request: web.Request) -> web.Response:
        fields = dict(await self._fields(request))
        dataset = await self.data.lookup.one(who(request), path_part(request, FOLDER))
        action = fields.get("action", "")
        if action not in ON_ONE:
            raise Refusal(400, "the form names no action that there is")
        wish = Wish(
            action=cast(Action, action),
            options=self._rerun_options(dataset, fields) if action == "rerun" else {},
            reason=_reason(fields),
            priority=_priority(fields) if action == "prioritize" else 0,
        )
        result = await self.acting.one(who(request), dataset, wish)
        return self._tell(request, result["ok"], [result["message"]], f"{FOLDER}{dataset.dataset_id}")

    def _rerun_options(self, dataset: Dataset, fields: dict[str, str]) -> Options:
        text = fields.get("directives", "")
        if text.strip() and self.data.directives(dataset) is None:
            raise Refusal(400, f"the pipeline {dataset.pipeline} takes no directives")
        return directive_options(text) | self._options(dataset.pipeline, fields)

    def _options(self, pipeline: str, fields: dict[str, str]) -> Options:
        known = {option.name: option for option in self.data.daemon.pipeline_options(pipeline)}
        found: Options = {}
        for field, text in fields.items():
            name = field.removeprefix(PREFIX)
            if field == name or text == "":
                continue
            if name not in known:
                raise Refusal(400, f"the pipeline {pipeline} has no option {name!r}")
            found[name] = option_value(known[name], text)
        return found

    async def act_on_many(self, request: web.Request) -> web.Response:
        """On the datasets that were ticked in the list."""
        fields = await self._fields(request)
        named = [value for key, value in fields if key == "dataset"]
        told = dict(fields)
        action = told.get("action", "")
        if action not in ON_MANY:
            raise Refusal(400, f"choose one of {', '.join(ON_MANY)}")
        if not 0 < len(named) <= MANY_MAX:
            raise Refusal(400, f"tick 1 to {MANY_MAX} datasets")
        principal = who(request)
        wish = Wish(action=cast(Action, action), reason=_reason(told))
        chosen = [await self.data.lookup.one(principal, name) for name in named]
        results: list[dict[str, Any]] = []
        for some in batched(chosen):
            results += await asyncio.gather(*(self.acting.one(principal, each, wish) for each in some))
        ok = all(result["ok"] for result in results)
        to = told.get("to", "")
        to = to if to == "/datasets" or to.startswith("/datasets?") else "/datasets"
        return self._tell(request, ok, [result["message"] for result in results], to)

    async def close_breaker(self, request: web.Request) -> web.Response:
        fields = dict(await self._fields(request))
        result = await self.acting.close_breaker(who(request), fields.get("scope", "")[:1000])
        return self._tell(request, result["ok"], [result["message"]], "/")

    async def reload_policy(self, request: web.Request) -> web.Response:
        await self._fields(request)
        ok, faults, version = await self.acting.reload(who(request))
        told = [f"the policy was read; version {version} is in force"] if ok else faults
        return self._tell(request, ok, told, "/policy")

    async def try_policy(self, request: web.Request) -> web.Response:
        """Check a candidate and show what it would change.  Nothing of it is kept or applied."""
        fields = dict(await self._fields(request))
        if wait := self._tries.take(f"{who(request).via}:{who(request).name}"):
            raise Refusal(429, f"too many tries; again in {wait:.0f} s", retry_after_seconds=wait)
        candidate = fields.get("candidate", "").replace("\r\n", "\n")
        if len(candidate) > 200_000:
            raise Refusal(413, "a candidate may have 200000 characters at most")
        instead = fields.get("mode") == "instead"
        judged = await self.data.daemon.try_policy(candidate, instead)
        return self.pages.draw_policy(request, candidate=candidate, instead=instead, judged=judged)


def directive_options(text: str) -> Options:
    """``KEY = VALUE``, a line each, and comments: parts of a file of directives can be pasted.  What a key
    means the pipeline judges.  Raises Refusal."""
    if len(text) > DIRECTIVES_MAX:
        raise Refusal(413, f"directives may have {DIRECTIVES_MAX} characters at most")
    found: Options = {}
    lines = map(str.strip, text.splitlines())
    for line in (line for line in lines if line and not line.startswith("#")):
        key, equals, value = line.partition("=")
        if not equals or "." not in key:
            raise Refusal(400, f"a directive is KEY = VALUE on a line of its own, not {line[:60]!a}")
        found[key.strip()] = value.strip()
    return found


def option_value(option: OptionView, text: str) -> str | int | float | bool:
    """A field's text as the option's type; limits and choices the pipeline judges.  Raises Refusal."""
    kind = float if option.default is None else type(option.default)
    if kind is bool:
        if text not in ("true", "false"):
            raise Refusal(400, f"{option.name} is true or false")
        return text == "true"
    if kind is str:
        return text
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise Refusal(400, f"{option.name} is a number, not {text[:60]!a}") from None


def _reason(fields: dict[str, str]) -> str:
    reason = fields.get("reason", "").strip()
    if len(reason) > REASON_MAX:
        raise Refusal(400, f"a reason has {REASON_MAX} characters at most")
    return reason


def _priority(fields: dict[str, str]) -> int:
    text = fields.get("priority", "").strip()
    number = whole(text.removeprefix("-").removeprefix("+"), "priority", 0, 1000)
    return -number if text.startswith("-") else number
