"""A notice to one destination, by the channel that reaches it: once, also over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from msgspec.structs import replace

from tiltd.plugins.api import Notifier, Temporary

from .core.model import Notice, channel_of
from .sent import Sending, SentFile

AT_ONCE = 4
"""Of one channel: a mail server is not to be stormed, and one that hangs holds up its own channel alone."""
MEND_SECONDS = 900.0
SENT_MAX = 1000
Due = Callable[[], Mapping[str, Notice]]
"""The notices that are due now, by their ids."""


class Posting:
    """``notifiers``: ``log``, ``email`` and every webhook by its name."""

    def __init__(self, notifiers: Mapping[str, Notifier], folder: Path, due: Due) -> None:
        self._notifiers = notifiers
        self._due = due
        self._sent = SentFile(folder, self._sendings())
        self._gates = {name: asyncio.Semaphore(AT_ONCE) for name in notifiers}
        self._lock = asyncio.Lock()

    def _sendings(self) -> list[Sending]:
        return [(notice.sent_id, to) for notice in self._due().values() for to in notice.to]

    async def post(self, notice: Notice, to: str) -> None:
        """Raises Temporary or Permanent, as its channel does."""
        channel = channel_of(to)
        name = to if channel == "webhook" else channel
        notifier = self._notifiers.get(name)
        if notifier is None:
            what = "[notices.email]" if channel == "email" else f"webhook {to}"
            raise Temporary(f"tiltd.toml has no {what} any more, so {to} cannot be told", MEND_SECONDS)
        if (notice.sent_id, to) in self._sent:
            return
        async with self._gates[name]:
            await notifier.notify(replace(notice, to=(to,)))
        if channel != "log":
            await self._note(notice.sent_id, to)

    async def _note(self, sent_id: str, to: str) -> None:
        """Its own task: a daemon that is being stopped notes it all the same."""
        await asyncio.shield(asyncio.ensure_future(self._write(sent_id, to)))

    async def _write(self, sent_id: str, to: str) -> None:
        try:
            async with self._lock:
                await asyncio.to_thread(self._sent.add, sent_id, to)
                if len(self._sent) > SENT_MAX:
                    await asyncio.to_thread(self._sent.keep, self._sendings())
        except OSError as error:
            structlog.get_logger("tiltd.notice").warning(
                f"that a notice was sent could not be noted, a restart may send it again: {error.strerror}"
            )
