"""A completed series copied to storage that nodes see, for feeds that only the daemon's host sees.

The copy is slow on purpose (a token bucket, so that the microscope's own transfers keep their share),
proved (prints of the input before and after, SHA-256 of the copy read back) and atomic (a hidden folder,
one rename).  All of it blocks: call it in a worker thread.

In the copy the files bear their local names (``TiltSeries.local_names``), so a job file for an imported
series has the imported folder as ``input.root`` and, for every file, ``source`` equal to ``name``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tiltd.daemon.core.model import FilePrint, TiltSeries
from tiltd.daemon.core.observations import ImportAnswered
from tiltd.daemon.text import shown
from tiltd.daemon.verify import sha256_of

PIECE_BYTES = 1 << 20
DIR_MODE, FILE_MODE = 0o750, 0o640
"""Whatever the umask; raw data of a session is not opened to the whole world by copying it."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class TokenBucket:
    """At most ``bytes_per_second`` on average, shared by all threads that take from it; one second's worth
    may be taken at once.  0 means no limit.  ``clock`` and ``sleep`` are for tests."""

    def __init__(
        self,
        bytes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = bytes_per_second, clock, sleep
        self._lock = threading.Lock()
        self._left = float(bytes_per_second)
        self._filled_at = clock()

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass.  Takes first and sleeps off the debt, so turns are kept."""
        if self._rate <= 0:
            return
        with self._lock:
            now = self._clock()
            self._left = min(self._rate, self._left + max(0.0, now - self._filled_at) * self._rate)
            self._filled_at = now
            self._left -= count
            debt_seconds = -self._left / self._rate
        if debt_seconds > 0:
            self._sleep(debt_seconds)


class InputChanged(Exception):
    """The input is not what was judged complete.  The message says which file."""


class Stopped(Exception):
    """The daemon is stopping."""


def import_folder(import_dir: str, dataset_id: str, series: TiltSeries) -> str:
    """Where a series is imported to; the input's digest is in the name, so another input never meets it."""
    return os.path.join(import_dir, f"{dataset_id}.{series.fingerprint.digest[:12]}")


def import_series(
    dataset_id: str,
    series: TiltSeries,
    feed_path: str,
    import_dir: str,
    bucket: TokenBucket,
    at: float,
    stopping: Callable[[], bool] = lambda: False,
) -> ImportAnswered:
    """Copy a completed series below ``import_dir``; the answer's ``path`` is the folder with the copy.

    Safe to do twice: a copy that is there, whole, is taken as it is; what a crash left is begun anew.
    ``input_changed`` when the files are not (any more) those of the series' fingerprint.  Never raises for
    what the world does.
    """
    try:
        path = _imported(dataset_id, series, feed_path, import_dir, bucket, stopping)
        return ImportAnswered(at=at, dataset_id=dataset_id, path=path)
    except InputChanged as error:
        return ImportAnswered(at=at, dataset_id=dataset_id, input_changed=True, trouble=str(error))
    except Stopped:
        return ImportAnswered(at=at, dataset_id=dataset_id, trouble="tiltd is stopping; to be begun anew")
    except OSError as error:
        what = shown(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else import_dir
        sentence = f"cannot import {dataset_id}: {what}: {error.strerror or error}"
        return ImportAnswered(at=at, dataset_id=dataset_id, trouble=sentence, retry_seconds=60.0)


def _imported(
    dataset_id: str,
    series: TiltSeries,
    feed_path: str,
    import_dir: str,
    bucket: TokenBucket,
    stopping: Callable[[], bool],
) -> str:
    if not _NAME.fullmatch(dataset_id):
        raise OSError(22, "this is no id of a dataset", dataset_id)
    final = import_folder(import_dir, dataset_id, series)
    part = os.path.join(import_dir, f".tiltd-{os.path.basename(final)}")
    shutil.rmtree(part, ignore_errors=True)
    if os.path.lexists(final):
        if _is_whole(final, series):
            return final
        Path(final).rename(part)  # ours by its name, but damaged
        shutil.rmtree(part)
    _folder(import_dir)
    _folder(part)
    try:
        for file in series.fingerprint.files:
            target = os.path.join(part, *series.local_names()[file.relative_path].split("/"))
            _folder(os.path.dirname(target))
            _copy(source_path(feed_path, file.relative_path), target, file, bucket, stopping)
        for folder in {part, *(str(path.parent) for path in Path(part).rglob("*"))}:
            _sync_folder(folder)
        Path(part).rename(final)
        _sync_folder(import_dir)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return final


def source_path(feed_path: str, relative_path: str) -> str:
    """The file in the feed.  Raises InputChanged for a path that leaves the feed."""
    parts = relative_path.split("/")
    if "\0" in relative_path or any(part in ("", ".", "..") for part in parts):
        raise InputChanged(f"{shown(relative_path)} is no path inside the feed")
    return os.path.join(feed_path, *parts)


def matches(fd: int, file: FilePrint) -> str:
    """ "" when an open file has this print (the rule is at :class:`FilePrint`), else what differs."""
    size_bytes = os.fstat(fd).st_size
    if size_bytes != file.size_bytes:
        return f"has {size_bytes} bytes, it had {file.size_bytes}"
    piece = max(0, file.piece_bytes)
    if hashlib.sha256(os.pread(fd, piece, 0)).hexdigest() != file.head_sha256:
        return "begins otherwise than it did"
    if file.tail_sha256:
        tail = os.pread(fd, piece, max(0, size_bytes - piece))
        if hashlib.sha256(tail).hexdigest() != file.tail_sha256:
            return "ends otherwise than it did"
    return ""


def _copy(
    source: str, target: str, file: FilePrint, bucket: TokenBucket, stopping: Callable[[], bool]
) -> None:
    """One file, between two looks at its print, and read back.  Raises InputChanged, Stopped and OSError."""
    reader = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo must not hold us
    try:
        before = os.fstat(reader)
        trouble = "is no regular file" if not stat.S_ISREG(before.st_mode) else matches(reader, file)
        if trouble:
            raise InputChanged(f"{shown(source)} {trouble}")
        writer = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            read = _stream(reader, writer, bucket, stopping)
            os.fchmod(writer, FILE_MODE)
            os.fsync(writer)
            os.posix_fadvise(writer, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the disk is asked, not memory
            if sha256_of(writer) != read:
                raise OSError(5, "the copy reads back differently from what was written", target)
        finally:
            os.close(writer)
        trouble = matches(reader, file)
        if not trouble and before.st_mtime_ns != os.fstat(reader).st_mtime_ns:
            trouble = "was written to while it was copied"
        trouble = trouble or _print_differs(source, file)
        if trouble:
            raise InputChanged(f"{shown(source)} {trouble}")
    finally:
        os.close(reader)


def _stream(reader: int, writer: int, bucket: TokenBucket, stopping: Callable[[], bool]) -> str:
    sha = hashlib.sha256()
    while piece := os.read(reader, PIECE_BYTES):
        if stopping():
            raise Stopped
        bucket.take(len(piece))
        sha.update(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(writer, rest) :]
    return sha.hexdigest()


def _print_differs(path: str, file: FilePrint) -> str:
    """By its name once more: it may have been replaced under our hands.  (Inode numbers do not tell it: a
    CIFS share may give a file a new one at every open.)"""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return matches(fd, file)
    finally:
        os.close(fd)


def _is_whole(final: str, series: TiltSeries) -> bool:
    """Whether an imported folder has every file with its print.  Reads at most two pieces of each."""
    names = series.local_names()
    for file in series.fingerprint.files:
        try:
            if _print_differs(os.path.join(final, names[file.relative_path]), file):
                return False
        except FileNotFoundError:
            return False
    return True


def _folder(path: str) -> None:
    """Make one folder if it is missing, open to the daemon's group whatever the umask."""
    if not Path(path).is_dir():
        Path(path).mkdir()
        Path(path).chmod(DIR_MODE)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
