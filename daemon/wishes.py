"""What operators ask the running daemon for: into the inbox like everything else, answered once durable."""

from __future__ import annotations

import asyncio
import uuid

from msgspec.structs import replace

from .core import effects as e
from .core import observations as o
from .loop import Loop

ASK_TIMEOUT_SECONDS = 30.0


class Wishes:
    """Memory: the wishes that wait for their answer."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked: dict[str, asyncio.Future[tuple[bool, str]]] = {}

    async def ask(self, observation: o.OperatorAsked) -> tuple[bool, str]:
        """Was it done, and what is to be said of it."""
        request_id = observation.request_id or uuid.uuid4().hex
        waiting: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = waiting
        await self._loop.put(replace(observation, request_id=request_id))
        try:
            async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                return await waiting
        except TimeoutError:
            self._asked.pop(request_id, None)
            late = "tiltd did not come to it in time; look again before repeating it"
            return False, self._loop.stuck or late

    def replied(self, reply: e.Reply) -> None:
        waiting = self._asked.pop(reply.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result((reply.ok, reply.message))
