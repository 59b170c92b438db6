"""Staged result -> verified -> published by one rename, with its manifest; never over anything.

Every step can be done again after a crash at any point and comes to the same end: what is written goes
into the hidden staging folder, and only the rename, which refuses an existing name, makes it public.
Nothing is copied.  All of it blocks: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from tiltd.daemon import manifest as manifests
from tiltd.daemon import report
from tiltd.daemon.core.model import Attempt, Dataset, ExpectedResult, Problem, RunEnd, Verdict
from tiltd.daemon.core.observations import CollectAnswered
from tiltd.daemon.durable import Durably, ToDisk
from tiltd.daemon.handover import (
    Publishing,
    Refused,
    hand_over,
    hand_over_folder,
    readers_of,
    write,
    written,
)
from tiltd.daemon.manifest import FromJobFiles, Published
from tiltd.daemon.text import shown
from tiltd.daemon.verify import CHECKSUMS, Damaged, Missing, Staged, read_checksums, verify

RENAME_NOREPLACE = 1
SIGHT_SECONDS = 90.0
"""NFS may show a folder that another host filled up to 60 s late (30 to 60 s of cached attributes)."""
_NO_RENAMEAT2 = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
_PERMANENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ENOTDIR, errno.ENAMETOOLONG}


class Occupied(Exception):
    """The final name is taken by something that is not ours."""


def staging_folder(final: str, attempt_id: str) -> str:
    """Where the runner stages: hidden, beside the final folder, so that publishing is a rename."""
    return os.path.join(os.path.dirname(final), f".tiltd-{attempt_id}")


def collect(
    dataset: Dataset,
    attempt: Attempt,
    final: str,
    nonce: str,
    expected: Sequence[ExpectedResult],
    publish: Publishing,
    verdict: Verdict,
    at: float,
    staging: str = "",
    told: FromJobFiles = manifests.NOTHING_TOLD,
) -> Durably[CollectAnswered]:
    """Verify and publish one attempt's staged result; the answer says what became of it.  Never raises
    for what the world does.

    ``attempt`` is the one that staged (a rescue too; then what ran is looked up in ``dataset``); ``nonce``
    its job file's; ``expected`` its pipeline's promises.  A verdict of ``failed`` or ``bad`` publishes
    nothing: the staged result of the first is removed, of the second it stays, with its report, for a person
    to look at.
    What is missing within 90 s of the runner's end is trouble to be tried again, later it is ``damaged``.
    """
    staging = staging or staging_folder(final, attempt.attempt_id)
    ran, end = _what_ran(dataset, attempt)
    try:
        if mine := _published_already(dataset, final):
            discard(staging, attempt.attempt_id)
            _tidy(final)
            fields = _fields_of(mine) | {"mine_already": True}
        elif verdict.verdict in ("failed", "bad"):
            fields = _told_by(verdict) | {"failure": verdict.failure}
            if verdict.verdict == "failed":
                discard(staging, attempt.attempt_id)
            elif end is not None:
                record = manifests.manifest(dataset, ran, end, verdict, (), (), at, told)
                waits = yield from _waiting(staging, nonce, record, publish)
                fields["problems"] = (*verdict.problems, waits)
        elif end is None:
            raise Damaged(f"attempt {attempt.attempt_id} has no end that tells of a result")
        else:
            staged = verify(staging, nonce, expected, full=publish.verify == "full")
            record = manifests.manifest(dataset, ran, end, verdict, staged.files, staged.inputs, at, told)
            yield from _prepare(staging, staged, record, publish)
            yield from _publish(staging, final, publish)
            fields = _told_by(verdict) | {"result_path": final, "result_bytes": staged.total_bytes}
    except (Damaged, Occupied, Refused, OSError) as error:
        recent = attempt.end is not None and abs(at - attempt.end.ended_at) < SIGHT_SECONDS
        fields = _trouble(error, staging, final, recent)
    measured = end.measured if end else None
    return CollectAnswered(at=at, attempt_id=attempt.attempt_id, measured=measured, **fields)


def _told_by(verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.verdict, "quality": verdict.quality, "problems": verdict.problems}


def _trouble(error: Exception, staging: str, final: str, recent: bool) -> dict[str, Any]:
    """What an error says of the result.  ``recent``: what is missing may only not be seen here yet."""
    if isinstance(error, FileNotFoundError) and error.filename == staging and _is_absent(staging):
        error = Missing(f"{shown(staging)} is gone: there is no staged result")
    if isinstance(error, Missing) and recent:
        return {"trouble": f"{error} (yet)", "retry_seconds": 15.0}
    if isinstance(error, Damaged):
        return {"trouble": str(error), "damaged": True}
    if isinstance(error, Occupied):
        return {"trouble": str(error), "permanent": True, "occupied": True}
    if isinstance(error, FileExistsError):  # since we looked; the next look tells whose it is
        return {"trouble": f"{shown(final)} appeared while the result was being published"}
    if isinstance(error, OSError):
        return {"trouble": _sentence(final, error), "permanent": error.errno in _PERMANENT}
    return {"trouble": str(error), "permanent": True}


def _publish(staging: str, final: str, publish: Publishing) -> Durably[None]:
    parent = os.path.dirname(final)
    try:
        rename_exclusively(staging, final)
    except FileNotFoundError:  # as a rule the folder is there: the runner staged beside the final one
        make_folders(parent, publish)
        rename_exclusively(staging, final)
    yield ToDisk((), (parent,))
    _tidy(final)


def look_for_result(final: str, dataset: Dataset) -> Published | None:
    """This dataset's result at the final place, if one is there whole.  Raises OSError when the destination
    cannot be read: then nothing is known."""
    found = manifests.read(final)
    if found is None or not manifests.is_of(found, dataset) or manifests.lacking(found):
        return None
    return found


def free_bytes(path: str) -> int | None:
    """Free bytes of the file system that ``path`` is or will be on; ``None`` when that cannot be read."""
    while True:
        try:
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize
        except (FileNotFoundError, NotADirectoryError):
            if path in ("", "/"):
                return None
            path = os.path.dirname(path.rstrip("/"))
        except OSError:
            return None


def discard(staging: str, attempt_id: str) -> bool:
    """Remove an attempt's staging folder; true if nothing of it is left.  Only a real folder that bears
    this attempt's name is ever removed."""
    if os.path.basename(staging) != f".tiltd-{attempt_id}":
        raise ValueError(f"{staging!r} is not the staging folder of {attempt_id!r}")
    try:
        status = os.lstat(staging)
    except OSError:  # as a rule: it was published
        return True
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(staging, ignore_errors=True)
    return not os.path.lexists(staging)


def make_folders(path: str, publish: Publishing) -> None:
    """Make what is missing of a path, with mode and group as configured whatever the umask; what is there
    already is left as it is.  Raises OSError and Refused."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another result of the same session made it meanwhile
            Path(folder).mkdir()
            _sync_and_close(hand_over_folder(folder, readers_of(publish)))
            _sync_and_close(_opened_folder(os.path.dirname(folder)))


def rename_exclusively(source: str, target: str) -> None:
    """Rename, refusing a name that exists.  Raises FileExistsError and OSError.

    Where the file system has no such rename (NFS, FUSE), a look and a plain rename must do: a folder can
    replace nothing but an empty folder that somebody made in between.
    """
    libc, at_cwd = _libc(), -100
    if hasattr(libc, "renameat2"):
        if libc.renameat2(at_cwd, os.fsencode(source), at_cwd, os.fsencode(target), RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_RENAMEAT2:
            raise OSError(number, os.strerror(number), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    Path(source).rename(target)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _what_ran(dataset: Dataset, attempt: Attempt) -> tuple[Attempt, RunEnd | None]:
    """The attempt that computed the result, and its runner's last word (for a rescue: the rescued one)."""
    if attempt.kind == "rescue":
        for other in dataset.attempts:
            if other.attempt_id == attempt.rescues_attempt_id and other.end is not None:
                return other, other.end
    return attempt, attempt.end


def _published_already(dataset: Dataset, final: str) -> Published | None:
    """Our own result at the final place, ``None`` where nothing is.  Raises Occupied."""
    if not os.path.lexists(final):
        return None
    found = manifests.read(final)
    if found is None:
        raise Occupied(
            f"{shown(final)} exists and has no {manifests.NAME} of tiltd; it is left alone: "
            "move it away, then release the dataset"
        )
    if not manifests.is_of(found, dataset):
        raise Occupied(
            f"{shown(final)} holds the result of {shown(found.dataset_id)}; it is left alone: "
            "move it away or change the feed's destination, then release the dataset"
        )
    if name := manifests.lacking(found):
        raise Occupied(
            f"{shown(final)} holds an earlier result of this series that has lost or changed "
            f"{shown(name)}; it is left alone: move it away, then release the dataset"
        )
    return found


def _fields_of(mine: Published) -> dict[str, Any]:
    return {
        "result_path": mine.path,
        "result_bytes": mine.result_bytes,
        "verdict": mine.verdict,
        "quality": mine.quality,
        "problems": mine.problems,
    }


def _prepare(staging: str, staged: Staged, record: dict[str, Any], publish: Publishing) -> Durably[None]:
    """Modes and group of everything, report and manifest, all on disk before the rename."""
    readers = readers_of(publish)
    for name, status in staged.statuses.items():
        if not readers.can_read(status):
            hand_over(f"{staging}/{name}", readers)
    for name in staged.unlisted:
        hand_over(f"{staging}/{name}", readers)
    record = record | {"unlisted": list(staged.unlisted)}
    fds: list[int] = []
    try:
        written(staging, _report(staging, record) | {manifests.NAME: manifests.text(record)}, readers, fds)
        for folder in sorted(staged.folders, reverse=True):
            fd = hand_over_folder(f"{staging}/{folder}", readers)
            if folder:  # as a rule there are none; there may be any number
                _sync_and_close(fd)
            else:
                os.close(fd)
        yield ToDisk(fds, (staging,))
    finally:
        for fd in fds:
            os.close(fd)


def _report(staging: str, record: dict[str, Any]) -> dict[str, str]:
    """The page for people by its name; none where the pipeline made one of that name itself.  A page that
    cannot be made is no reason to withhold a tomogram; a full destination is."""
    names = [file["name"] for file in record["files"]]
    if manifests.REPORT in names:
        return {}
    try:
        return {manifests.REPORT: report.page(record, report.gather(staging, names))}
    except Exception:
        structlog.get_logger("tiltd.collect").exception("a report cannot be made", staging=shown(staging))
        return {}


def _waiting(staging: str, nonce: str, record: dict[str, Any], publish: Publishing) -> Durably[Problem]:
    """A bad result stays where it was staged.  Its report is for the person who decides."""
    if not Path(staging).is_dir():
        detail = f"the result is not in {shown(staging)} any more; rerun the series"
        return Problem(code="waits", detail=detail)
    found = f"the result waits in {shown(staging)}"
    with contextlib.suppress(OSError, Damaged, Refused):
        files, _ = read_checksums(staging, nonce)
        page = _report(staging, record | {"files": msgspec.to_builtins(files)})
        yield from write(staging, page, readers_of(publish))
        found += f", look at its {manifests.REPORT}"
    return Problem(code="waits", detail=f"{found}; release delivers it as it is, rerun makes another")


def _tidy(final: str) -> None:
    """The runner's checksum list has done its work: the manifest tells the same."""
    with contextlib.suppress(OSError):
        os.unlink(f"{final}/{CHECKSUMS}")  # noqa: PTH108 - a path object would cost as much again


def _is_absent(staging: str) -> bool:
    """Whether the folder that should hold it can be listed and does not: only then absence is known."""
    try:
        return os.path.basename(staging) not in os.listdir(os.path.dirname(staging))
    except OSError:
        return False


def _sentence(final: str, error: OSError) -> str:
    what = shown(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else shown(final)
    return (
        f"cannot publish {shown(final)}: {what}: {error.strerror or error}; free space or mend access there"
    )


def _opened_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync_and_close(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
