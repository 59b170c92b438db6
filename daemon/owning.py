"""One owner per state folder, and the journal's mark in the spool.

The mark tells a journal that was lost, or restored from last week's backup, from one that is whole: what it
does not know is then held for release instead of being run again by the hundred.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
from pathlib import Path
from typing import TextIO

import structlog

from .journal import Journal


class StartError(Exception):
    """tiltd cannot start; the message says what to do."""


def own(state_dir: Path) -> TextIO:
    """Take the state folder for this daemon alone; the lock goes with the process.  Raises StartError."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = open(state_dir / "tiltd.lock", "a+")  # noqa: SIM115 - held until the process ends
    except OSError as error:
        raise StartError(f"state_dir {state_dir} cannot be used: {error.strerror}; set another") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise StartError(f"another tiltd owns {state_dir}; stop it first") from None
        raise
    return lock


def write_mark(spool_dir: Path, journal: Journal) -> None:
    mark = spool_dir / "journal.mark"
    fresh = spool_dir / ".journal.mark.new"
    with contextlib.suppress(OSError):
        fresh.write_text(json.dumps({"journal_id": journal.journal_id, "sequence": journal.sequence}))
        fresh.replace(mark)


def journal_is_behind(spool_dir: Path, journal: Journal) -> bool:
    """True when the spool has seen a later (or another) journal than this one."""
    try:
        mark = json.loads((spool_dir / "journal.mark").read_text())
        return bool(mark["journal_id"] != journal.journal_id or mark["sequence"] > journal.sequence)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        structlog.get_logger("tiltd").warning(f"the journal's mark in {spool_dir} cannot be read: {error}")
        return False
