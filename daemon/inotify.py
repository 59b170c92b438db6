"""A hint that something moved in a folder, by the kernel's inotify.  Never more than a hint.

inotify does not see what another machine writes on NFS or CIFS, nor writes made underneath a mount, and its
queue can overflow: all that follows from an event is that the next scan comes sooner.  Without it (switched
off, no more watches, another system) everything works as well, only later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable

IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
MASK = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW

MAX_FOLDERS = 256
"""Watches a feed: the folders that moved lately, far below the kernel's limit per user."""


class FolderHints:
    """Watches a few folders; ``descriptor`` becomes readable when one of them moved, -1 if it cannot."""

    def __init__(self) -> None:
        self._watches: dict[str, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            self.descriptor = -1

    def follow(self, folders: Iterable[str]) -> None:
        """Watch these absolute paths, at most ``MAX_FOLDERS`` of them, and no others."""
        if self.descriptor < 0:
            return
        wanted = set(sorted(folders)[:MAX_FOLDERS])
        for path in set(self._watches) - wanted:
            self._libc.inotify_rm_watch(self.descriptor, self._watches.pop(path))
        for path in wanted - set(self._watches):
            watch = self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), MASK)
            if watch >= 0:
                self._watches[path] = watch

    def drain(self) -> bool:
        """Forget the events that are waiting (what they say is for the scan to find); true if any were."""
        any_event = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 65536):
                any_event = True
        return any_event

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
