"""Files and folders that survive a power cut: what the spool and results are written with."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class ToDisk(NamedTuple):
    """Files, open, whose content, and folders whose names are to be on disk."""

    files: Sequence[int]
    folders: Sequence[str]


Durably = Generator[ToDisk, None, T]
"""Work on files that waits at each ``yield`` until what it gives is on disk, or meets the OSError there.
:func:`at_once` does one alone, :class:`~tiltd.daemon.commits.Commits` several together."""


class Begun(Generic[T]):
    """Such work up to where it waits: ``given`` is what for, ``None`` once it has ended with ``result``;
    ``error`` is what the disk said.  Raises what the work raises, and so does ``go_on``."""

    __slots__ = ("_work", "error", "given", "result")

    def __init__(self, work: Durably[T]) -> None:
        self._work = work
        self.given: ToDisk | None = None
        self.error: OSError | None = None
        self.result: T
        self._step(None)

    def go_on(self) -> None:
        """On to where it waits next, after :func:`wait_for_disk`."""
        error, self.error = self.error, None
        self._step(error)

    def _step(self, error: OSError | None) -> None:
        try:
            self.given = next(self._work) if error is None else self._work.throw(error)
        except StopIteration as end:
            self.given, self.result = None, end.value


def wait_for_disk(together: Sequence[Begun[Any]]) -> None:
    """For all that they wait for; what cannot be written is its own piece's ``error``.

    Writing is begun for all files before any is waited for.  Were the second begun only after the first is
    there, the file system would commit twice, which costs more than all else that is done to them.  Content
    comes before names: a journaling file system takes those along, and they cost next to nothing.  A folder
    of several pieces is waited for once.
    """
    files = [fd for begun in together if begun.given for fd in begun.given.files]
    if len(files) > 1:
        for fd in files:
            with contextlib.suppress(OSError):  # it is a hint: what matters comes with the fsync
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    in_folders: dict[str, list[Begun[Any]]] = {}
    for begun in together:
        if begun.given is not None:
            try:
                for fd in begun.given.files:
                    os.fsync(fd)
            except OSError as error:
                begun.error = error
            else:
                for folder in begun.given.folders:
                    in_folders.setdefault(folder, []).append(begun)
    for folder, those in in_folders.items():
        try:
            sync_folder(folder)
        except OSError as error:
            for begun in those:
                begun.error = error


def at_once(work: Durably[T]) -> T:
    """The whole of it, here and now."""
    begun = Begun(work)
    while begun.given is not None:
        wait_for_disk((begun,))
        begun.go_on()
    return begun.result


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
    """Is a job file that lies there whole?  Then what is in it is durable from now on.

    Whoever wrote it may have died between its name and its fsync, and a power cut then leaves a torn one;
    nothing was submitted with that.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            json.loads(file.readall())
            os.fsync(file.fileno())
    except FileNotFoundError:  # claimed or revoked meanwhile
        return True
    except ValueError:
        return False
    return True


def write_durably(path: str, content: bytes, mode: int) -> None:
    """Whole or not at all, also after a power cut: a temporary file, fsync, rename, fsync of the folder."""
    folder = os.path.dirname(path)
    temporary, fd = _written(path, content, mode)
    try:
        os.fsync(fd)
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_folder(folder)


def write_new(
    folder: str, contents: Mapping[str, bytes], named: Mapping[str, bytes], mode: int
) -> Durably[None]:
    """Files by name into a folder that is new or prepared anew; on disk, and their names in it, and its own.
    Of those that are ``named`` only that they are there is to outlive a power cut.

    They get their names before they are on disk, so that one commit of the file system takes all of it.  What
    cuts it short until then may leave a torn file: only for those that nobody uses before, and that are
    looked at (:func:`settled`) where they are found later.
    """
    files: list[int] = []
    made: list[str] = []
    try:
        for name, content in (*contents.items(), *named.items()):
            path = f"{folder}/{name}"
            fd = new_file(path)
            files.append(fd)
            made.append(path)
            write_all(fd, content)
            os.fchmod(fd, mode)
        yield ToDisk(files[: len(contents)], (folder, os.path.dirname(folder)))
    except OSError:
        for path in made:
            Path(path).unlink(missing_ok=True)
        raise
    finally:
        for fd in files:
            os.close(fd)


def new_file(path: str) -> int:
    """Its descriptor, to be written to; what an earlier try has left there goes.  Raises OSError."""
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, new, 0o600)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108 - beside so much that is done with descriptors
        return os.open(path, new, 0o600)


def write_all(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _written(path: str, content: bytes, mode: int) -> tuple[str, int]:
    """A temporary file beside ``path``, not on disk yet, and its descriptor."""
    # Two submissions at once install the same runner: each writes a file of its own.
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{os.getpid()}.{threading.get_ident()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, content)
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        Path(temporary).unlink(missing_ok=True)
        raise
    return temporary, fd


def sync_folder(folder: str | Path) -> None:
    """Its names are on disk.  Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
