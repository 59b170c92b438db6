"""Which attempts' folders changed since the last look; the kernel's inotify says where to look sooner.

What runs on the machine that has the spool on a disk of its own is told at once; what another machine writes
on NFS is not told at all.  So hints only ever save looks: all live attempts are looked at again and again,
more seldom for as long as every change was hinted at, and as often as ever once one was not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator, Mapping

from .spool import AttemptSeen, Spool, stat_of

LOOKS_PER_OPEN = 20
"""Every so many looks a file is opened rather than only stat-ed, which makes an NFS client ask its server."""
WATCHES_MAX = 4096
"""Folders that are watched at once, far below what a user may (fs.inotify.max_user_watches)."""
IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x002, 0x040, 0x080, 0x100, 0x200
IN_Q_OVERFLOW = 0x4000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x01000000, 0x02000000
MASK = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW
_EVENT = struct.Struct("iIII")


class SpoolWatch:
    """``descriptor`` becomes readable when something moved, -1 where the kernel does not tell.

    Not for the event loop: its looks block.  A whole look costs three ``stat`` calls for each live attempt,
    any other those that moved.
    """

    def __init__(self, spool: Spool, *, hints: bool = True) -> None:
        self.spool = spool
        self._hints = AttemptHints() if hints else None
        self.descriptor = self._hints.descriptor if self._hints else -1
        self._signatures: dict[str, tuple[object, ...]] = {}
        self._folders: dict[str, str] = {}
        self._looks = 0
        self._missed = False
        self._unhinted: set[str] = set()

    @property
    def relied(self) -> bool:
        """Hints came of what runners did, and there was no change without one."""
        return self._hints is not None and self._hints.by_runners and not self._missed

    @property
    def sees_all(self) -> bool:
        """Whatever moves in the folders of the last look will be told; not where some were not there yet."""
        return self._hints is not None and self._hints.watches_all

    def look(self, attempt_ids: Iterable[str], *, whole: bool = True) -> list[AttemptSeen]:
        """Those of ``attempt_ids`` that are new to this watch or changed; the others are forgotten.  Not
        ``whole``: only where something moved, and where nobody would tell."""
        known, before = self._folders, self._signatures
        self._folders = {each: known.get(each) or str(self.spool.folder(each)) for each in attempt_ids}
        watched, moved = self._hints.take(self._folders) if self._hints else (frozenset(), set())
        # The kernel may show a change a moment before it tells of it: by the next look it has.
        self._missed = self._missed or not self._unhinted <= moved
        self._unhinted = set()
        self._signatures = {}
        self._looks += 1
        changed = []
        for number, (attempt_id, folder) in enumerate(self._folders.items()):
            signature = before.get(attempt_id)
            if whole or attempt_id in moved or attempt_id not in watched or signature is None:
                now = self._signature(folder, (self._looks + number) % LOOKS_PER_OPEN == 0)
                if now != signature:
                    changed.append(self.spool.read(attempt_id))
                    if attempt_id in watched and attempt_id not in moved and signature is not None:
                        self._unhinted.add(attempt_id)
                signature = now
            self._signatures[attempt_id] = signature
        return changed

    def _signature(self, folder: str, opened: bool) -> tuple[object, ...]:
        paths = (folder, f"{folder}/progress", f"{folder}/end")  # strings: this is done all the time
        if opened and not self.relied:
            reopen(paths)
        return tuple([stat_of(path) for path in paths])

    def close(self) -> None:
        if self._hints:
            self._hints.close()


class AttemptHints:
    """Watches the folders of live attempts.  ``by_runners``: some hint was of what only a runner writes."""

    def __init__(self) -> None:
        self.by_runners = self.watches_all = False
        self._watches: dict[str, int] = {}
        self._attempts: dict[int, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            self.descriptor = -1

    def take(self, folders: Mapping[str, str]) -> tuple[frozenset[str], set[str]]:
        """Watch these from now on, by attempt id, and no others.  Gives those that were watched since the
        last look, and those of them where something moved since then."""
        if self.descriptor < 0:
            return frozenset(), set()
        moved = self._drain()
        watched = frozenset(self._watches)
        for attempt_id in watched - folders.keys():
            number = self._watches.pop(attempt_id)
            self._attempts.pop(number, None)
            self._libc.inotify_rm_watch(self.descriptor, number)
        for attempt_id in folders.keys() - watched:
            if len(self._watches) < WATCHES_MAX:
                path = os.fsencode(folders[attempt_id])
                number = self._libc.inotify_add_watch(self.descriptor, path, MASK)
                if number >= 0:
                    self._watches[attempt_id], self._attempts[number] = number, attempt_id
        # Those that are watched from now on are to be looked at once more: they may have moved just before.
        self.watches_all = folders.keys() <= watched
        return watched, moved

    def _drain(self) -> set[str]:
        moved: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self.descriptor, 1 << 16):
                for number, mask, name in events_of(content):
                    if mask & IN_Q_OVERFLOW:
                        moved.update(self._watches)
                    elif attempt_id := self._attempts.get(number):
                        moved.add(attempt_id)
                        told = mask & IN_MODIFY and name in (b"progress", b"end")
                        self.by_runners = self.by_runners or bool(told)
        return moved

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def events_of(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(watch, mask, name) of each event; the names come filled up with zeros."""
    at = 0
    while at < len(content):
        number, mask, _, size = _EVENT.unpack_from(content, at)
        at += _EVENT.size + size
        yield number, mask, content[at - size : at].rstrip(b"\0")


def reopen(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))
