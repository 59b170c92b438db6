"""Small reads from a feed: read-only, regular files only, never through a link, never waiting."""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOATIME = getattr(os, "O_NOATIME", 0)


class FeedLook:
    """How a detector reads below ``root`` (``plugins/api.py`` ``Look``).

    A pipe or device under a stack's name is refused instead of being waited for; ``bytes_read`` counts what
    was read, so that the watcher can put the rest off.  Methods raise OSError.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.bytes_read = 0
        self._flags = _FLAGS | _NOATIME

    def head(self, relative_path: str, size_bytes: int) -> bytes:
        """The file's first ``size_bytes``, or all of a shorter one."""
        return self._read(relative_path, size_bytes, from_end=False)

    def tail(self, relative_path: str, size_bytes: int) -> bytes:
        """The file's last ``size_bytes``, or all of a shorter one."""
        return self._read(relative_path, size_bytes, from_end=True)

    def text(self, relative_path: str, max_bytes: int) -> bytes:
        """The whole file, cut off after ``max_bytes``."""
        return self._read(relative_path, max_bytes, from_end=False)

    def _read(self, relative_path: str, size_bytes: int, *, from_end: bool) -> bytes:
        descriptor = self._open(relative_path)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            # What is asked for beyond the end is never there, but memory would be taken for it.
            left = min(size_bytes, status.st_size)
            offset = status.st_size - left if from_end else 0
            pieces = []
            while left > 0 and (piece := os.pread(descriptor, min(left, 1 << 20), offset)):
                pieces.append(piece)
                offset += len(piece)
                left -= len(piece)
        finally:
            os.close(descriptor)
        data = b"".join(pieces)
        self.bytes_read += len(data)
        return data

    def _open(self, relative_path: str) -> int:
        parts = relative_path.split("/")
        if relative_path.startswith("/") or ".." in parts or "" in parts:
            raise OSError(errno.EINVAL, "not a path below the feed")
        path = f"{self.root}/{relative_path}"
        try:
            return os.open(path, self._flags)
        except PermissionError:
            if not self._flags & _NOATIME:
                raise
            # O_NOATIME is for a file's owner only; elsewhere the reading time is the server's affair.
            self._flags &= ~_NOATIME
            return os.open(path, self._flags)
