"""What a submission leaves in its attempt's folder, so that a crash at any point is found out afterwards.

``job.sh`` is written, durably, before ``qsub`` is called: where it is, a job may exist.  As a rule it is laid
down with the job file.  A job that has claimed the attempt has renamed its job file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tiltd.daemon.core.model import Record
from tiltd.plugins.torque_jobs import JOB_ID

SCRIPT = "job.sh"


class Trace(Record):
    """``prepared``: the job file waits to be claimed.  ``intended``: a job may have been submitted."""

    prepared: bool = False
    revoked: bool = False
    intended: bool = False
    claimed_by: str = ""

    @property
    def untouched(self) -> bool:
        """Nothing was ever submitted for it, and it may be run."""
        return self.prepared and not (self.intended or self.revoked or self.claimed_by)


UNTOUCHED = Trace(prepared=True)


def read(folder: str) -> Trace:
    """One listing of the folder.  Raises OSError."""
    names = os.listdir(folder)
    claimed = [name.partition(".")[2] for name in names if name.startswith("claimed.")]
    return Trace(
        prepared="job.json" in names,
        revoked="revoked" in names,
        intended=SCRIPT in names,
        claimed_by=claimed[0] if claimed and JOB_ID.fullmatch(claimed[0]) else "",
    )


def begin(folder: str, script: str) -> Trace:
    """What was there before; and where nothing was submitted yet, the script is written, its name durably.

    What stands in it is for the ``qsub`` that follows: after a power cut only that it was there counts.  An
    empty ``script`` only looks.  Raises OSError.
    """
    trace = read(folder)
    if not script or not trace.untouched:
        return trace
    with open(os.path.join(folder, SCRIPT), "wb") as file:
        file.write(script.encode("ascii"))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return trace


def withdraw(folder: str) -> None:
    """The server certainly took nothing: the next call may submit at once."""
    with contextlib.suppress(OSError):
        Path(folder, SCRIPT).unlink()
