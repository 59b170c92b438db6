"""What a dead attempt left on this machine's scratch, removed; the runner and its janitor come first."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path

from tiltd.daemon.text import shown

_ATTEMPT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
MAX_LEASE_BYTES = 65536


def release(scratch_path: str, attempt_id: str, alive: bool, given_up: bool = False) -> str:
    """Make sure that nothing of a dead attempt is left below ``scratch_path``; "" when nothing is, else a
    sentence that says why something stays.

    Removes only real folders named exactly ``ATTEMPT_ID`` (and ``ATTEMPT_ID.old``, a former run's) right
    below ``scratch_path``.  Links are never followed.  Everything of an attempt that is ``alive`` stays, and
    a result that waits there for its rescue (a lease with ``stranded``) unless it is ``given_up``.  Blocks;
    cost grows with the number of files.
    """
    if not _ATTEMPT_ID.fullmatch(attempt_id):
        return f"{shown(attempt_id)} is no id of an attempt; nothing was removed"
    for name in (attempt_id, f"{attempt_id}.old"):
        path = os.path.join(scratch_path, name)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"cannot look at {shown(path)}: {error.strerror}"
        trouble = _why_it_stays(path, status, alive, given_up) or _remove(path)
        if trouble:
            return trouble
    return ""


def _why_it_stays(path: str, status: os.stat_result, alive: bool, given_up: bool) -> str:
    if not stat.S_ISDIR(status.st_mode):
        return f"{shown(path)} is no folder of ours (a link or a file); look at it and remove it by hand"
    if alive:
        return f"the job of {shown(path)} is still alive"
    if not given_up and _is_stranded(path):
        return f"{shown(path)} holds a result that waits for its rescue"
    return ""


def _is_stranded(path: str) -> bool:
    """A lease that cannot be read keeps nothing: the runner writes it whole, by a rename."""
    try:
        fd = os.open(os.path.join(path, "lease.json"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            lease = json.loads(file.read(MAX_LEASE_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(lease, dict) and lease.get("stranded") is True


def _remove(path: str) -> str:
    """Folders that a program left without permissions are opened first.  Walks by descriptors."""
    for _, folders, _, at in os.fwalk(path, onerror=None, follow_symlinks=False):
        for folder in folders:
            if stat.S_ISDIR(os.lstat(folder, dir_fd=at).st_mode):
                os.chmod(folder, 0o700, dir_fd=at)
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return ""
    try:
        Path(path).rmdir()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{shown(path)} could not be removed: {error.strerror}; remove it by hand"
    return ""
