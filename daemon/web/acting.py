"""POST: what an operator wants done.  Who asks is what the kernel, the token or the trusted proxy says."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Iterator
from typing import Any, cast, get_args

from aiohttp import web

from tiltd.daemon.core.model import Dataset, Options, Record
from tiltd.daemon.core.observations import Action, OperatorAsked

from .access import Principal
from .asked import selection
from .guard import Guard, json_body, who
from .lookup import MAX_ROWS, Lookup
from .noting import note
from .refusal import Refusal, answer
from .routes import API, Route
from .view import Daemon

ACTIONS = get_args(Action)
FIELDS = {"action", "datasets", "selection", "options", "reason", "priority", "dry_run"}


AT_ONCE = 100
MESSAGE_MAX = 1000


def batched(datasets: list[Dataset]) -> Iterator[list[Dataset]]:
    for start in range(0, len(datasets), AT_ONCE):
        yield datasets[start : start + AT_ONCE]


class Wish(Record):
    """What is asked for, checked."""

    action: Action
    options: Options = {}
    reason: str = ""
    priority: int = 0
    dry_run: bool = False


class Acting:
    def __init__(self, daemon: Daemon, lookup: Lookup, guard: Guard) -> None:
        self.daemon = daemon
        self.lookup = lookup
        self.guard = guard

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"{API}/actions", self.actions, "act"),
            Route("POST", f"{API}/policy/reload", self.reload_policy, "act_whole"),
        ]

    async def reload_policy(self, request: web.Request) -> web.Response:
        """Read the policy files again, now.  What is refused changes nothing and is told in full."""
        self.guard.api_forged(request)
        if await json_body(request):
            raise Refusal(400, "a reload takes no fields: the files are those of tiltd.toml")
        ok, faults, version = await self.reload(who(request))
        return answer({"ok": ok, "policy_version": version, "faults": faults})

    async def reload(self, principal: Principal) -> tuple[bool, list[str], str]:
        """Accepted?  Else the faults.  And the version that is in force then."""
        ok, faults, version = await self.daemon.reload_policy(principal.name)
        told = f"the policy was read; version {version} is in force"
        if not ok:
            told = f"the policy was refused, version {version} stays: {'; '.join(faults)}"[:MESSAGE_MAX]
        await note(self.daemon, principal, "reload_policy", told, ok=ok)
        return ok, faults, version

    async def actions(self, request: web.Request) -> web.Response:
        """The answer tells for each dataset what became of it.  Some at a time: they share commits."""
        self.guard.api_forged(request)
        principal = who(request)
        body = await json_body(request)
        wish = _checked(body)
        if wish.action == "close_breaker":
            results = [await self.close_breaker(principal, wish.reason)]
            return answer({"action": wish.action, "dry_run": False, "results": results})
        results = []
        for some in batched(await self._datasets(principal, body)):
            results += await asyncio.gather(*(self.one(principal, dataset, wish) for dataset in some))
        return answer({"action": wish.action, "dry_run": wish.dry_run, "results": results})

    async def _datasets(self, principal: Principal, body: dict[str, Any]) -> list[Dataset]:
        names, chosen = body.get("datasets"), body.get("selection")
        if (names is None) == (chosen is None):
            raise Refusal(400, "give either datasets (a list of names) or selection (an object)")
        if chosen is not None:
            if not isinstance(chosen, dict) or not any(chosen.values()):
                raise Refusal(400, "selection must name at least one of state, feed, project, session, name")
            return await self.lookup.select(principal, selection({"limit": MAX_ROWS} | chosen))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refusal(400, "datasets must be a list of ids or names")
        return [await self.lookup.one(principal, name) for name in names[:MAX_ROWS]]

    async def close_breaker(self, principal: Principal, scope: str) -> dict[str, Any]:
        """Only for those who see all projects: a breaker stops the work of all."""
        if not principal.whole:
            raise Refusal(403, "a breaker concerns all projects; closing it is for those who see all")
        asked = OperatorAsked(
            at=self.daemon.clock.now(),
            action="close_breaker",
            dataset_id="",
            by=principal.name,
            via=principal.via,
            request_id=secrets.token_hex(8),
            reason=scope,
        )
        ok, message = await self.daemon.ask(asked)
        return {"dataset_id": "", "name": scope, "state": "", "ok": ok, "message": message}

    async def one(self, principal: Principal, dataset: Dataset, wish: Wish) -> dict[str, Any]:
        """Ask for it, or only whether it could be done.  ``dataset`` is one that this principal sees."""
        result: dict[str, Any] = {
            "dataset_id": dataset.dataset_id,
            "name": dataset.tilt_series_name,
            "state": dataset.state.value,
            "ok": True,
            "message": f"would {wish.action.replace('_', ' ')}",
        }
        if wish.dry_run:
            no = self.daemon.core.objection(wish.action, dataset, wish.options)
            return result | ({"ok": False, "message": no} if no else {})
        live = dataset.dataset_id in self.daemon.core.state.datasets
        latest_run = await self.lookup.latest_run(dataset) if wish.action == "rerun" else dataset.run
        asked = OperatorAsked(
            at=self.daemon.clock.now(),
            action=wish.action,
            dataset_id=dataset.dataset_id,
            by=principal.name,
            via=principal.via,
            request_id=secrets.token_hex(8),
            record=None if live else dataset,
            options=wish.options,
            reason=wish.reason,
            priority=wish.priority,
            latest_run=latest_run,
        )
        ok, message = await self.daemon.ask(asked)
        return result | {"ok": ok, "message": message}


def _checked(body: dict[str, Any]) -> Wish:
    if unknown := sorted(set(body) - FIELDS):
        raise Refusal(400, f"unknown field {unknown[0]!r}; known: {', '.join(sorted(FIELDS))}")
    action, options, reason = body.get("action"), body.get("options", {}), body.get("reason", "")
    if action not in ACTIONS:
        raise Refusal(400, f"action must be one of {', '.join(ACTIONS)}")
    if not isinstance(options, dict) or not all(
        isinstance(value, str | int | float | bool) for value in options.values()
    ):
        raise Refusal(400, "options must be an object of texts, numbers and truth values")
    if any(isinstance(value, float) and not math.isfinite(value) for value in options.values()):
        raise Refusal(400, "a number among the options is not finite")
    if not isinstance(reason, str) or len(reason) > 1000:
        raise Refusal(400, "reason must be a text of at most 1000 characters")
    priority = body.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > 1000:
        raise Refusal(400, "priority must be a whole number from -1000 to 1000")
    if not isinstance(dry_run := body.get("dry_run", False), bool):
        raise Refusal(400, "dry_run must be true or false")
    return Wish(
        action=cast(Action, action), options=options, reason=reason, priority=priority, dry_run=dry_run
    )
