"""Files and folders that survive a power cut: what the spool is written with."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path


def make_folder(folder: str) -> bool:
    """Make it, and what is missing above it; true if it was certainly not there before."""
    try:
        os.mkdir(folder)  # noqa: PTH102 - as all of it
    except FileExistsError:
        return False
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        return False
    return True


def settled(path: str) -> bool:
    """Is a job file that lies there whole?  Then it is durable from now on.

    Whoever wrote it may have died between its name and its fsync, and a power cut then leaves a torn one;
    nothing was submitted with that.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            json.loads(file.readall())
            os.fsync(file.fileno())
        sync_folder(os.path.dirname(path))
    except FileNotFoundError:  # claimed or revoked meanwhile
        return True
    except ValueError:
        return False
    return True


def write_durably(path: str, content: bytes, mode: int, name_first: bool = False) -> None:
    """Whole or not at all, also after a power cut: a temporary file, fsync, rename, fsync of the folder.

    With ``name_first`` the rename comes before the fsync, which then takes the names along, and the folder's
    costs next to nothing.  But a power cut until this returns may leave a torn file: only for one that nobody
    uses until then, and that is looked at (:func:`settled`) where it is found later.
    """
    # Two submissions at once install the same runner: each writes a file of its own.
    folder, name = os.path.split(path)
    written = temporary = f"{folder}/.{name}.{os.getpid()}.{threading.get_ident()}.new"
    try:
        with open(temporary, "wb", buffering=0) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fchmod(file.fileno(), mode)
            if name_first:
                os.rename(temporary, path)  # noqa: PTH104
                written = path
            os.fsync(file.fileno())
        if not name_first:
            os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise
    sync_folder(folder)


def sync_folder(folder: str | Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
