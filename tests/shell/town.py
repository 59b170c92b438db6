"""Mail and chat for tests that are no coroutines: real servers in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from plugins.post_office import PostOffice, Receiver


class Town:
    """Mail and chat, served by a thread of their own."""

    def __init__(self) -> None:
        self.office, self.receiver = PostOffice(), Receiver()

    @classmethod
    def at(cls, mail_port: int, hook_port: int) -> Town:
        """Where another one was before."""
        town = cls()
        town.office.port, town.receiver.port = mail_port, hook_port
        return town

    @contextlib.contextmanager
    def open(self) -> Iterator[Town]:
        opened, loop = threading.Event(), asyncio.new_event_loop()
        closed = asyncio.Event()

        async def serve() -> None:
            async with self.office.open(), self.receiver.open():
                opened.set()
                await closed.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        assert opened.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(closed.set)
            thread.join(10)

    def mails(self) -> Counter[str]:
        """Subject -> how many mails."""
        return Counter(str(mail["Subject"]) for _, mail in self.office.mails)

    def ids(self) -> set[str]:
        return {str(mail["Message-ID"]) for _, mail in self.office.mails}
