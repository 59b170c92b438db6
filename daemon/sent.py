"""What has been sent and may not be in the journal yet: a line each, in ``state_dir/notices-sent``.

A mail is out as soon as the server says so; the fact that says it is durable a moment later, or, when the
disk is full, much later.  A daemon that was killed in between finds its own word here, and does not send it
again.  Lines of notices that are due no more are dropped at the start, and when there are many.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

NAME = "notices-sent"
FILE_BYTES_MAX = 10_000_000

Sending = tuple[str, str]
"""``Notice.sent_id``, and a destination."""


class SentFile:
    """Blocking: to be used from worker threads, by one process."""

    def __init__(self, folder: Path, due: Collection[Sending] = ()) -> None:
        """``due`` are those that may still be sent; what else the file says is dropped."""
        self._path = folder / NAME
        wanted = {_mark(*sending) for sending in due}
        self._marks = wanted & set(self._read())
        self._begin()

    def __contains__(self, sending: object) -> bool:
        return isinstance(sending, tuple) and _mark(*sending) in self._marks

    def add(self, sent_id: str, to: str) -> None:
        """Durable when it returns.  Raises OSError."""
        mark = _mark(sent_id, to)
        self._marks.add(mark)
        with self._path.open("a", encoding="ascii") as file:
            file.write(mark + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, due: Collection[Sending]) -> None:
        """Forget what is not among these: the journal has it.  Raises OSError."""
        self._marks &= {_mark(*sending) for sending in due}
        self._begin()

    def __len__(self) -> int:
        return len(self._marks)

    def _read(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                return file.read(FILE_BYTES_MAX).decode("ascii", "replace").split("\n")
        except OSError:
            return []

    def _begin(self) -> None:
        new = self._path.with_name(NAME + ".new")
        with new.open("w", encoding="ascii") as file:
            file.writelines(mark + "\n" for mark in sorted(self._marks))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _mark(sent_id: str, to: str) -> str:
    return hashlib.sha256(f"{sent_id}\0{to}".encode("utf-8", "surrogateescape")).hexdigest()
