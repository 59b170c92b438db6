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

Signature = tuple[tuple[int, int] | None, ...]
"""Size and time of an attempt's folder, of its progress and its end."""
NOTHING: Signature = (None, None, None)
"""Of an attempt that was not looked at yet, or whose folder is not there yet: there is nothing to read."""


class SpoolWatch:
    """``descriptor`` becomes readable when something moved, -1 where the kernel does not tell.

    Not for the event loop: its looks block.  A whole look costs three ``stat`` calls for each live attempt
    (one for those that are not prepared yet), any other those that moved.
    """

    def __init__(self, spool: Spool, *, hints: bool = True) -> None:
        self.spool = spool
        self._hints = AttemptHints() if hints else None
        self.descriptor = self._hints.descriptor if self._hints else -1
        if self.descriptor < 0:
            self._hints = None
        self._signatures: dict[str, Signature] = {}
        self._folders: dict[str, str] = {}
        self._due: set[str] = set()
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

    def look(
        self, came: Iterable[str] = (), gone: Iterable[str] = (), *, whole: bool = True
    ) -> list[AttemptSeen]:
        """Who changed of those that are followed: from now on also who ``came``, and not who is ``gone``.
        Not ``whole``: only where something moved, and where nobody would tell.  After a look that raises,
        who came and went is known, and everything else is news still."""
        new, gone = self._follow(came, gone)
        unwatched, moved = self._hints.take(new, gone) if self._hints else (set(self._folders), set())
        # The kernel may show a change a moment before it tells of it: by the next look it has.
        self._missed = self._missed or not self._unhinted <= moved
        self._unhinted = set()
        self._due |= unwatched | (moved & self._folders.keys())
        self._looks += 1
        changed, signatures = [], {}
        for number, attempt_id in enumerate(self._folders if whole else sorted(self._due)):
            now = self._signature(self._folders[attempt_id], (self._looks + number) % LOOKS_PER_OPEN == 0)
            if now != self._signatures.get(attempt_id, NOTHING):
                changed.append(self.spool.read(attempt_id, silent=is_silent(now)))
                signatures[attempt_id] = now
                if attempt_id in self._signatures and attempt_id not in self._due:
                    self._unhinted.add(attempt_id)
        # All or none: after a look that failed, everything is news still.
        self._signatures.update(signatures)
        self._due.clear()
        return changed

    def _follow(self, came: Iterable[str], gone: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Folders by id of those that are new, and who was followed and is gone.  Costs nothing for the
        hundreds that wait."""
        went = [each for each in gone if self._folders.pop(each, None)]
        for each in went:
            self._signatures.pop(each, None)
        self._due.difference_update(went)
        new = {each: self.spool.place(each) for each in came if each not in self._folders}
        self._folders |= new
        return new, went

    def _signature(self, folder: str, opened: bool) -> Signature:
        paths = (folder, f"{folder}/progress", f"{folder}/end")  # strings: this is done all the time
        if opened and not self.relied:
            reopen(paths)
        made = stat_of(paths[0])
        return (made, stat_of(paths[1]), stat_of(paths[2])) if made else NOTHING

    def close(self) -> None:
        if self._hints:
            self._hints.close()


class AttemptHints:
    """Watches the folders of live attempts.  ``by_runners``: some hint was of what only a runner writes."""

    def __init__(self) -> None:
        self.by_runners = self.watches_all = False
        self._watches: dict[str, int] = {}
        self._attempts: dict[int, str] = {}
        self._unwatched: dict[str, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            self.descriptor = -1

    def take(self, new: Mapping[str, str], gone: Iterable[str]) -> tuple[set[str], set[str]]:
        """Watch the folders of ``new`` from now on, by attempt id, and those of ``gone`` no more.  Gives who
        was not watched since the last look, and where something moved since then."""
        moved = self._drain()
        for attempt_id in gone:
            self._unwatched.pop(attempt_id, None)
            if number := self._watches.pop(attempt_id, 0):
                del self._attempts[number]
                self._libc.inotify_rm_watch(self.descriptor, number)
        # Those that are watched from now on are to be looked at once more: they may have moved just before.
        self._unwatched |= new
        unwatched = set(self._unwatched)
        self.watches_all = not unwatched
        for attempt_id, folder in list(self._unwatched.items())[: max(0, WATCHES_MAX - len(self._watches))]:
            number = self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), MASK)
            if number > 0:
                self._watches[attempt_id], self._attempts[number] = number, attempt_id
                del self._unwatched[attempt_id]
        return unwatched, moved

    def _drain(self) -> set[str]:
        moved: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self.descriptor, 1 << 16):
                for number, mask, name in events_of(content):
                    if mask & IN_Q_OVERFLOW:
                        moved.update(self._watches)
                    elif attempt_id := self._attempts.get(number):
                        moved.add(attempt_id)
                        if mask & IN_MODIFY and name in (b"progress", b"end"):
                            self.by_runners = True
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


def is_silent(signature: Signature) -> bool:
    """Its runner has written nothing, as far as the sizes tell."""
    _, progress, end = signature
    return not (progress and progress[0]) and not (end and end[0])


def reopen(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))
