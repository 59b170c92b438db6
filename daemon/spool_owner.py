"""One daemon per spool, also where two hosts see it.

``owner`` in the spool says who has it.  Its lock (flock(2), which NFS hands on to its server) tells at once.
Where locks do not reach the other host (``nolock``, ``local_lock``), the age of the file tells: its owner
renews it every minute, by the file server's clock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from .owning import StartError
from .text import shown

SILENT_SECONDS = 300.0
"""An owner on another host that has not renewed for so long is gone.  Five of its periods, for an NFS client
that hung for a while."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_KEYS = ("host", "pid", "journal_id", "since")


class SpoolOwner:
    """The spool, taken.  Raises StartError with a sentence when another daemon has it."""

    def __init__(self, spool_dir: Path, journal_id: str, now: float, host: str = "") -> None:
        self.path = spool_dir / "owner"
        self._host = host or socket.gethostname()
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        self._me = dict(zip(_KEYS, (self._host, os.getpid(), journal_id, since), strict=True))
        try:
            spool_dir.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+", encoding="ascii")  # noqa: SIM115 - held until the process ends
        except OSError as error:
            raise StartError(f"spool_dir {spool_dir} cannot be used: {error.strerror}; set another") from None
        try:
            self._take()
        except BaseException:
            self._file.close()
            raise

    def _take(self) -> None:
        other = _read(self.path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise StartError(self._refusal(other)) from None
            if error.errno not in NO_LOCKS:
                raise
        if other and other["host"] != self._host:
            silent_seconds = self._silent_seconds()
            if silent_seconds < SILENT_SECONDS:
                raise StartError(
                    f"{self._refusal(other)}; it was heard {silent_seconds:.0f} s ago, so if that host is "
                    f"dead, wait until {SILENT_SECONDS:.0f} s are over, or remove {self.path}"
                )
        self._file.truncate(0)
        self._file.write(json.dumps(self._me))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _refusal(self, other: dict[str, object] | None) -> str:
        whom = "another tiltd"
        if other:
            host, pid, since = (shown(str(other[key])) for key in ("host", "pid", "since"))
            whom = f"the tiltd on {host} (process {pid}, since {since})"
        return (
            f"the spool {self.path.parent} belongs to {whom}; stop that one first, or give this one a spool "
            "of its own (spool_dir)"
        )

    def _silent_seconds(self) -> float:
        """Both instants are the file server's, so that no two clocks are compared."""
        with tempfile.NamedTemporaryFile(prefix=".owner-", dir=self.path.parent) as probe:
            probe.write(b"now")
            probe.flush()
            os.fsync(probe.fileno())
            return os.fstat(probe.fileno()).st_mtime - self.path.stat().st_mtime

    def renew(self) -> str:
        """Say that one is alive; returns why one must stop, if another daemon has taken the spool, or "".

        A spool that is away for the moment is nobody's.
        """
        try:
            there = _read(self.path)
            if there != self._me:
                who = f"the tiltd on {shown(str(there['host']))}" if there else "somebody"
                return f"{who} has taken the spool {self.path.parent}: this tiltd was not heard for too long"
            os.utime(self.path)
        except OSError:
            pass
        return ""

    def release(self) -> None:
        """Nobody has to wait for an owner that has ended in order."""
        try:
            if _read(self.path) == self._me:
                self._file.truncate(0)
        except OSError:
            pass
        self._file.close()


def _read(path: Path) -> dict[str, object] | None:
    """Who owns the spool by that file; ``None`` if nobody does, or if it cannot be understood."""
    try:
        found = json.loads(path.read_text(encoding="ascii"))
        return {key: found[key] for key in _KEYS}
    except (ValueError, KeyError, TypeError):
        return None
