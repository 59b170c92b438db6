"""Files and folders of a result handed over to those who will read it: group, mode, and all of it on disk."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Mapping
from typing import Protocol

from tiltd.daemon.core.model import Record
from tiltd.daemon.durable import Durably, ToDisk, new_file, write_all


class Publishing(Protocol):
    """The ``[publish]`` table: modes as numbers, ``group`` a name or a number or "", ``verify`` "full" or
    "sizes"."""

    @property
    def dir_mode(self) -> int: ...
    @property
    def file_mode(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def verify(self) -> str: ...


class Refused(Exception):
    """A setting or the destination stands in the way until a person changes it."""


class Readers(Record):
    """Who may read: ``[publish]``, with the group's number (-1: as it is) looked up once for all files, since
    a directory server may be asked for it."""

    group: int
    group_name: str
    dir_mode: int
    file_mode: int

    def can_read(self, status: os.stat_result) -> bool:
        """Are group and mode as they should be?"""
        return self.group in (-1, status.st_gid) and stat.S_IMODE(status.st_mode) == self._mode(status)

    def let_read(self, fd: int) -> bool:
        """Set group and mode; true if that changed anything.  Raises Refused where the group cannot be
        given."""
        status = os.fstat(fd)
        if self.can_read(status):
            return False
        if self.group not in (-1, status.st_gid):
            try:
                os.fchown(fd, -1, self.group)  # before the mode: it clears set-group-id
            except PermissionError:
                raise Refused(
                    f"[publish] group: this user may not give files to the group {self.group_name!r}; "
                    "make it a member of the group"
                ) from None
        os.fchmod(fd, self._mode(status))
        return True

    def let_read_new(self, fd: int) -> None:
        """The same of a file that was only just made: only its group may be right, by the folder's."""
        if self.group == -1:
            os.fchmod(fd, self.file_mode)
        else:
            self.let_read(fd)

    def _mode(self, status: os.stat_result) -> int:
        if stat.S_ISDIR(status.st_mode):
            return self.dir_mode | (status.st_mode & stat.S_ISGID)  # as the folder above it wants it
        return self.file_mode


def readers_of(publish: Publishing) -> Readers:
    """Raises Refused for a group that nobody knows."""
    group = _group_number(publish.group)
    return Readers(
        group=group, group_name=publish.group, dir_mode=publish.dir_mode, file_mode=publish.file_mode
    )


def _group_number(group: str) -> int:
    if not group:
        return -1
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise Refused(
            f"[publish] group: {group!r} is not known on this machine; create it or change the setting"
        ) from None


def written(folder: str, texts: Mapping[str, str], readers: Readers, files: list[int]) -> None:
    """Files by name, for their readers; their descriptors, which are to be closed, are added to ``files``.

    Nobody reads them before the folder is renamed, so that they need no rename of their own.  Raises OSError
    and Refused.
    """
    for name, text in texts.items():
        fd = new_file(f"{folder}/{name}")
        files.append(fd)
        write_all(fd, text.encode("utf-8"))
        readers.let_read_new(fd)


def write(folder: str, texts: Mapping[str, str], readers: Readers) -> Durably[None]:
    """The same, on disk."""
    files: list[int] = []
    try:
        written(folder, texts, readers, files)
        yield ToDisk(files, ())
    finally:
        for fd in files:
            os.close(fd)


def hand_over(path: str, readers: Readers) -> None:
    """Group and mode of a file that somebody else wrote; on disk where that changed anything, since the
    runner has seen to the results themselves."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if readers.let_read(fd):
            os.fsync(fd)
    finally:
        os.close(fd)


def hand_over_folder(path: str, readers: Readers) -> int:
    """The same of a folder.  Its descriptor, open: its names are to be on disk too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        readers.let_read(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
