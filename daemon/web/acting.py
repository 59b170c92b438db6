"""POST: what an operator wants done.  On the unix socket only; who asks is what the kernel says."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any, cast, get_args

from aiohttp import web

from tiltd.daemon.core.model import Dataset, Options
from tiltd.daemon.core.observations import Action, OperatorAsked

from .guard import Refusal, answer, json_body, peer_name
from .lookup import MAX_ROWS, Lookup
from .reading import API, selection
from .view import Daemon

ACTIONS = get_args(Action)
FIELDS = {"action", "datasets", "selection", "options", "reason", "dry_run"}


AT_ONCE = 100


def batched(datasets: list[Dataset]) -> Iterator[list[Dataset]]:
    for start in range(0, len(datasets), AT_ONCE):
        yield datasets[start : start + AT_ONCE]


class Acting:
    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{API}/actions", self.actions),
            web.post(f"{API}/policy/reload", self.reload_policy),
        ]

    async def reload_policy(self, request: web.Request) -> web.Response:
        """Read the policy files again, now.  What is refused changes nothing and is told in full."""
        by = peer_name(request)
        if await json_body(request):
            raise Refusal(400, "a reload takes no fields: the files are those of tiltd.toml")
        ok, faults, version = await self.daemon.reload_policy(by)
        return answer({"ok": ok, "policy_version": version, "faults": faults})

    async def actions(self, request: web.Request) -> web.Response:
        """The answer tells for each dataset what became of it.  Some at a time: they share commits."""
        by = peer_name(request)
        body = await json_body(request)
        action, options, reason, dry_run = _checked(body)
        if action == "close_breaker":
            return answer({"action": action, "dry_run": False, "results": [await self._breaker(reason, by)]})
        results = []
        for some in batched(await self._datasets(body)):
            asked = (self._one(action, dataset, options, reason, by, dry_run) for dataset in some)
            results += await asyncio.gather(*asked)
        return answer({"action": action, "dry_run": dry_run, "results": results})

    async def _datasets(self, body: dict[str, Any]) -> list[Dataset]:
        names, chosen = body.get("datasets"), body.get("selection")
        if (names is None) == (chosen is None):
            raise Refusal(400, "give either datasets (a list of names) or selection (an object)")
        if chosen is not None:
            if not isinstance(chosen, dict) or not any(chosen.values()):
                raise Refusal(400, "selection must name at least one of state, feed, project, session, name")
            return await self.lookup.select(selection({"limit": MAX_ROWS} | chosen))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refusal(400, "datasets must be a list of ids or names")
        return [await self.lookup.one(name) for name in names[:MAX_ROWS]]

    async def _breaker(self, scope: str, by: str) -> dict[str, Any]:
        """``reason`` is the breaker's scope."""
        asked = OperatorAsked(
            at=self.daemon.clock.now(),
            action="close_breaker",
            dataset_id="",
            by=by,
            request_id=secrets.token_hex(8),
            reason=scope,
        )
        ok, message = await self.daemon.ask(asked)
        return {"dataset_id": "", "name": scope, "state": "", "ok": ok, "message": message}

    async def _one(
        self, action: Action, dataset: Dataset, options: Options, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "dataset_id": dataset.dataset_id,
            "name": dataset.tilt_series_name,
            "state": dataset.state.value,
            "ok": True,
            "message": f"would {action.replace('_', ' ')}",
        }
        if dry_run:
            no = self.daemon.core.objection(action, dataset, options)
            return result | ({"ok": False, "message": no} if no else {})
        live = dataset.dataset_id in self.daemon.core.state.datasets
        latest_run = await self.lookup.latest_run(dataset) if action == "rerun" else dataset.run
        asked = OperatorAsked(
            at=self.daemon.clock.now(),
            action=action,
            dataset_id=dataset.dataset_id,
            by=by,
            request_id=secrets.token_hex(8),
            record=None if live else dataset,
            options=options,
            reason=reason,
            latest_run=latest_run,
        )
        ok, message = await self.daemon.ask(asked)
        return result | {"ok": ok, "message": message}


def _checked(body: dict[str, Any]) -> tuple[Action, Options, str, bool]:
    if unknown := sorted(set(body) - FIELDS):
        raise Refusal(400, f"unknown field {unknown[0]!r}; known: {', '.join(sorted(FIELDS))}")
    action, options, reason = body.get("action"), body.get("options", {}), body.get("reason", "")
    if action not in ACTIONS:
        raise Refusal(400, f"action must be one of {', '.join(ACTIONS)}")
    if not isinstance(options, dict) or not all(
        isinstance(value, str | int | float | bool) for value in options.values()
    ):
        raise Refusal(400, "options must be an object of texts, numbers and truth values")
    if not isinstance(reason, str) or len(reason) > 1000:
        raise Refusal(400, "reason must be a text of at most 1000 characters")
    if not isinstance(dry_run := body.get("dry_run", False), bool):
        raise Refusal(400, "dry_run must be true or false")
    return cast(Action, action), options, reason, dry_run
