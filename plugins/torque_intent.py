"""What a submission leaves in its attempt's folder, so that a crash at any point is found out afterwards.

``job.sh`` is written, durably, before ``qsub`` is called: where it is, a job may exist.  ``accepted`` holds
the id that ``qsub`` printed.  A job that has claimed the attempt has renamed its job file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tiltd.daemon.core.model import Record
from tiltd.plugins.torque_jobs import JOB_ID

SCRIPT = "job.sh"
ACCEPTED = "accepted"


class Trace(Record):
    """``prepared``: the job file waits to be claimed.  ``intended``: a job may have been submitted.
    ``job_id``: the one that claimed it, else the one that was accepted."""

    prepared: bool = False
    revoked: bool = False
    intended: bool = False
    claimed_by: str = ""
    accepted: str = ""

    @property
    def job_id(self) -> str:
        return self.claimed_by or self.accepted


def read(folder: str) -> Trace:
    """One listing of the folder.  Raises OSError."""
    names = os.listdir(folder)
    claimed = [name.partition(".")[2] for name in names if name.startswith("claimed.")]
    accepted = ""
    if ACCEPTED in names:
        accepted = Path(folder, ACCEPTED).read_text("ascii", "replace").strip()
    return Trace(
        prepared="job.json" in names,
        revoked="revoked" in names,
        intended=SCRIPT in names,
        claimed_by=claimed[0] if claimed and JOB_ID.fullmatch(claimed[0]) else "",
        accepted=accepted if JOB_ID.fullmatch(accepted) else "",
    )


def intend(folder: str, script: str) -> str:
    """Write the script, durably; its path.  Raises OSError."""
    path = os.path.join(folder, SCRIPT)
    with open(path, "w", encoding="ascii") as file:
        file.write(script)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


def accepted(folder: str, job_id: str) -> None:
    """Note the id.  If the spool cannot take it, the job is found by its name next time."""
    with contextlib.suppress(OSError):
        part = Path(folder, ACCEPTED + ".new")
        part.write_text(job_id + "\n", "ascii")
        part.rename(Path(folder, ACCEPTED))


def withdraw(folder: str) -> None:
    """The server certainly took nothing: the next call may submit at once."""
    with contextlib.suppress(OSError):
        Path(folder, SCRIPT).unlink()
