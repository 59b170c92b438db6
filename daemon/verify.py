"""Is what lies in a staging folder what the runner said it staged, and what the pipeline promised?

Every file is read once, at most; what was read is dropped from the page cache again, so that a 10 GB
tomogram does not push out everybody else's files.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Sequence
from typing import Any

from tiltd.daemon import as_json
from tiltd.daemon.core.model import ExpectedResult, Problem, Record
from tiltd.daemon.manifest import NAME as MANIFEST
from tiltd.daemon.manifest import REPORT, ResultFile
from tiltd.daemon.text import shown
from tiltd.plugins import mrc

CHECKSUMS = ".checksums.json"
OWN_NAMES = frozenset({CHECKSUMS, MANIFEST, MANIFEST + ".new", REPORT, REPORT + ".new"})
MAX_CHECKSUMS_BYTES = 64 << 20
PIECE_BYTES = 4 << 20
SMALL_BYTES = 64 << 10
"""What so many bytes fit into is read at once, and may stay in the page cache."""

_NO_NAMES = frozenset(("", ".", ".."))


class Damaged(Exception):
    """The staging folder is not what was staged.  The message says which file and how it differs."""


class Missing(Damaged):
    """Something is not there, or not there yet: a network file system may show it later."""


class Staged(Record):
    """A staging folder that was verified.  ``folders`` (relative, the top is "") and ``files`` are all of
    it; ``statuses`` are what the system tells of the files, by name; ``unlisted`` are files beside the
    results that nobody vouches for; ``inputs`` are the checksums of the input as the runner read it."""

    files: tuple[ResultFile, ...]
    statuses: dict[str, os.stat_result]
    folders: tuple[str, ...]
    unlisted: tuple[str, ...] = ()
    inputs: tuple[Any, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class _Listed(Record):
    """The runner's list; what else is in it is for others."""

    files: tuple[ResultFile, ...]
    nonce: Any = None
    inputs: Any = None


def verify(staging: str, nonce: str, expected: Sequence[ExpectedResult], full: bool) -> Staged:
    """Check a staging folder against its own checksum list and the pipeline's promises.

    ``full``: read all and compare SHA-256; else sizes only.  Raises Damaged (Missing where files are not
    there), FileNotFoundError when there is no staging folder, and OSError when it cannot be read (which
    says nothing about the result).
    Cost grows with the bytes, about 0.6 s a GB where SHA-256 has help from the processor.
    """
    if not stat.S_ISDIR(os.lstat(staging).st_mode):
        raise Damaged(f"{shown(staging)} is no folder")
    folders, names = _walk(staging)
    files, inputs = read_checksums(staging, nonce)
    statuses = {}
    for file in files:
        if file.name not in names:
            raise Missing(f"{shown(file.name)} is missing in {shown(staging)}")
        statuses[file.name] = _check_file(f"{staging}/{file.name}", file, full)
    _check_promises(staging, {file.name: file for file in files}, expected)
    return Staged(
        files=files,
        statuses=statuses,
        folders=tuple(folders),
        unlisted=tuple(sorted(names - statuses.keys() - OWN_NAMES)),
        inputs=inputs,
    )


def read_checksums(staging: str, nonce: str) -> tuple[tuple[ResultFile, ...], tuple[Any, ...]]:
    """The runner's list and its input checksums.  Raises Damaged and OSError."""
    path = f"{staging}/{CHECKSUMS}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Missing(f"{shown(staging)} has no {CHECKSUMS}: the runner did not finish staging out") from None
    try:
        small = os.fstat(fd).st_size <= MAX_CHECKSUMS_BYTES
        content = b"".join(iter(lambda: os.read(fd, SMALL_BYTES), b"")) if small else b""
    finally:
        os.close(fd)
    try:
        listed = as_json.decode(content, _Listed)
    except (ValueError, RecursionError):
        listed = None
    if listed is None or not all(_is_inside(file.name) for file in listed.files):
        raise Damaged(f"{shown(path)} is no list of checksums that can be read")
    if listed.nonce != nonce:
        raise Damaged(
            f"{shown(path)} was written by another run of the job, not by the one that reported success"
        )
    return listed.files, tuple(listed.inputs) if isinstance(listed.inputs, list) else ()


def _is_inside(name: str) -> bool:
    return "\0" not in name and _NO_NAMES.isdisjoint(name.split("/"))


def _walk(staging: str) -> tuple[list[str], set[str]]:
    """Relative names of all folders (the top first, as "") and of all files.  Raises Damaged for links and
    special files, which the runner never stages: somebody else put them there."""
    folders, files = [""], set()
    for below in folders:  # grows on the way
        with os.scandir(f"{staging}/{below}" if below else staging) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_file(follow_symlinks=False):
                    files.add(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                else:
                    raise Damaged(
                        f"{shown(name)} in {shown(staging)} is a link or a special file, not a result"
                    )
    return folders, files


def _check_file(path: str, file: ResultFile, full: bool) -> os.stat_result:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_size != file.size_bytes:
            raise Damaged(f"{shown(path)} has {status.st_size} bytes; the runner staged {file.size_bytes}")
        if full and sha256_of(fd) != file.sha256:
            raise Damaged(f"{shown(path)} has another SHA-256 than what the runner staged")
        return status
    finally:
        os.close(fd)


def sha256_of(fd: int) -> str:
    """Hex SHA-256 of an open file from its start, read in pieces of 4 MiB and not left in the page cache."""
    begin = os.pread(fd, SMALL_BYTES + 1, 0)
    if len(begin) <= SMALL_BYTES and not os.pread(fd, 1, len(begin)):
        return hashlib.sha256(begin).hexdigest()
    sha, position = hashlib.sha256(), 0
    # Not from the heap, of which each worker thread would keep its own for good.
    with mmap.mmap(-1, PIECE_BYTES) as piece, memoryview(piece) as view:
        while count := os.preadv(fd, [view], position):
            with view[:count] as read:
                sha.update(read)
            os.posix_fadvise(fd, position, count, os.POSIX_FADV_DONTNEED)
            position += count
    return sha.hexdigest()


def _check_promises(staging: str, files: dict[str, ResultFile], expected: Sequence[ExpectedResult]) -> None:
    for promise in expected:
        file = files.get(promise.name)
        if file is None:
            raise Damaged(f"the result {shown(promise.name)} is missing in {shown(staging)}")
        if file.size_bytes < promise.min_bytes:
            raise Damaged(
                f"the result {shown(promise.name)} has {file.size_bytes} bytes, "
                f"at least {promise.min_bytes} are due"
            )
        if promise.image_size is not None or promise.mode is not None:
            trouble = _header_trouble(os.path.join(staging, file.name), file.size_bytes, promise)
            if trouble:
                raise Damaged(f"the result {shown(promise.name)} {trouble}")


def _header_trouble(path: str, size_bytes: int, promise: ExpectedResult) -> str:
    with open(path, "rb") as file:
        header = mrc.read_header(file.read(mrc.HEADER_BYTES))
    if isinstance(header, Problem):
        return f"is no MRC file: {header.detail}"
    size = (header.nx, header.ny, header.nz)
    if promise.image_size is not None and size != promise.image_size:
        return f"is {_times(size)} by its MRC header, not {_times(promise.image_size)}"
    if promise.mode is not None and header.mode != promise.mode:
        return f"has mode {header.mode} by its MRC header, not {promise.mode}"
    if size_bytes < header.size_at_rest_bytes:
        return f"is cut short: it has {size_bytes} bytes, its MRC header says {header.size_at_rest_bytes}"
    return ""


def _times(size: tuple[int, int, int]) -> str:
    return " x ".join(map(str, size))
