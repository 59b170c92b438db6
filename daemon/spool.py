"""The spool: one folder an attempt, in which the daemon and the runner meet.  Usually on NFS.

::

    attempts/<attempt_id>/job.json          durable before the job is submitted; then one rename wins:
                          claimed.<job_id>  by the runner, its first act
                          revoked           by the daemon: nobody will run this attempt
                          progress, end     JSON lines, made empty by the daemon, appended to by the runner
                          fence             by the daemon: the runner must not stage out any more
    tickets/0 ...                           who may stage in, where a resource manager decides who starts when
    runners/runner-<sha256[:12]>.py         the runner, by content: queued jobs keep theirs over an upgrade

Everything here can be done twice.  What the file system refuses is raised as Temporary with a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tiltd.daemon.core.model import Dataset, Progress, Record, RunEnd, RunSeen
from tiltd.daemon.core.observations import SpoolObserved
from tiltd.plugins.api import Temporary

from . import jobfile
from .durable import Durably, at_once, make_folder, settled, sync_folder, write_durably, write_new
from .told import lines, newest_claim, newest_end, number_of, read_progress, runs_of, text_of

ATTEMPT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
MAX_JOB_BYTES = 64 << 20


class AttemptSeen(Record):
    """What an attempt's folder shows.  ``pid``, ``pid_started`` (clock ticks since boot): the runner's.
    ``runs`` has one for each time that the job claimed and told so (several after a requeue)."""

    attempt_id: str
    prepared: bool = False
    revoked: bool = False
    fenced: bool = False
    claimed_by: str = ""
    claimed_node: str = ""
    claimed_at: float | None = None
    pid: int = 0
    pid_started: int = 0
    progress: Progress | None = None
    end: RunEnd | None = None
    runs: tuple[RunSeen, ...] = ()

    def observed(self, at: float) -> SpoolObserved:
        return SpoolObserved(
            at=at,
            attempt_id=self.attempt_id,
            claimed_by=self.claimed_by,
            claimed_node=self.claimed_node,
            claimed_at=self.claimed_at,
            progress=self.progress,
            end=self.end,
            runs=self.runs,
        )


class Spool:
    """The daemon's side of the spool.  Its calls may block on NFS: use a worker thread."""

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder)
        self._attempts = f"{self.root}/attempts"
        self._known = jobfile.Remembered()
        self._installed: tuple[str, tuple[int, int]] | None = None

    def folder(self, attempt_id: str) -> Path:
        """The attempt's.  Raises ValueError for what is no attempt's id."""
        return Path(self.place(attempt_id))

    def place(self, attempt_id: str) -> str:
        """The same as a string: a path object would cost as much as what is done with it."""
        if not ATTEMPT_ID.fullmatch(attempt_id):
            raise ValueError(f"{attempt_id!r} is no attempt id")
        return f"{self._attempts}/{attempt_id}"

    def install_runner(self) -> str:
        """Copy this version's runner into the spool, by content; returns its path.

        A copy that has not changed since it was compared is not read again.
        """
        if self._installed and stat_of(self._installed[0]) == self._installed[1]:
            return self._installed[0]
        content = Path(__file__).with_name("runner.py").read_bytes()
        path = self.root / "runners" / f"runner-{hashlib.sha256(content).hexdigest()[:12]}.py"
        with trouble("install the runner", path):
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_durably(str(path), content, 0o755)
        seen = stat_of(str(path))
        self._installed = (str(path), seen) if seen is not None else None
        return str(path)

    def install_tickets(self) -> str:
        """The folder in which runners take turns at staging in; returns its path."""
        folder = self.root / "tickets"
        with trouble("make the folder of tickets", folder):
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def prepare(self, attempt_id: str, document: dict[str, Any]) -> str:
        """:meth:`preparing`, here and now; returns the folder's path."""
        at_once(self.preparing(attempt_id, document, {}))
        return self.place(attempt_id)

    def preparing(
        self, attempt_id: str, document: dict[str, Any], papers: Mapping[str, bytes]
    ) -> Durably[bool]:
        """Make the attempt's folder durable, ready to be claimed, with the resource manager's ``papers``;
        true where they were not there before.

        Once prepared, claimed or revoked it stays as it is, so that doing it twice revives nothing.
        """
        folder = self.place(attempt_id)
        with trouble("prepare the attempt", folder):
            names = [] if make_folder(folder) else names_in(folder)
            mark = mark_among(names)
            if mark not in ("", "job.json"):
                return False
            new: dict[str, bytes] = {}
            if not mark or not settled(f"{folder}/job.json"):
                for name in ("progress", "end"):
                    os.close(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
                new["job.json"] = jobfile.encode(document)
                self._known.put(attempt_id, document)
            # Nothing was ever submitted with a job file that was torn, or was not there.
            laid = bool(papers) and (bool(new) or papers.keys().isdisjoint(names))
            yield from write_new(folder, new, papers if laid else {}, 0o644)
        return laid

    def revoke(self, attempt_id: str) -> tuple[bool, str]:
        """Withdraw it: (True, "") if nobody can run it any more, (False, job id) if a runner was first.

        An attempt that was never prepared is revoked as well: a late preparation then changes nothing.
        """
        folder = self.folder(attempt_id)
        with trouble("revoke the attempt", folder):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (folder / "job.json").rename(folder / "revoked")
            mark = owner_mark(folder)
            if mark.startswith("claimed."):
                return False, mark.removeprefix("claimed.")
            if mark != "revoked":
                write_durably(f"{folder}/revoked", b"{}", 0o644)
            sync_folder(folder)
            return True, ""

    def fence(self, attempt_id: str) -> None:
        """From now on its runner stages nothing out."""
        folder = self.folder(attempt_id)
        with trouble("fence the attempt", folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "fence").exists():
                write_durably(f"{folder}/fence", b"", 0o644)

    def read(self, attempt_id: str, *, silent: bool = False) -> AttemptSeen:
        """What is there, tolerant of torn lines and garbage; cost does not grow with the files' length.

        ``silent``: its files were seen to be empty, so that they are not opened unless a runner holds it.
        """
        folder = self.place(attempt_id)
        try:
            names = names_in(folder)
            mark = mark_among(names)
            if not mark:
                return AttemptSeen(attempt_id=attempt_id)
            job_id = mark.removeprefix("claimed.") if mark.startswith("claimed.") else ""
            if silent and not job_id:
                revoked, fenced = mark == "revoked", "fence" in names
                return AttemptSeen(attempt_id=attempt_id, prepared=True, revoked=revoked, fenced=fenced)
            told, progress = read_progress(f"{folder}/progress")
            ends = lines(f"{folder}/end")
        except OSError as error:
            raise refused("read the attempt", folder, error) from error
        claim = newest_claim(told, job_id)
        return AttemptSeen(
            attempt_id=attempt_id,
            prepared=True,
            revoked=mark == "revoked",
            fenced="fence" in names,
            claimed_by=job_id,
            claimed_node=text_of(claim, "node"),
            claimed_at=number_of(claim, "at"),
            pid=int(number_of(claim, "pid") or 0),
            pid_started=int(number_of(claim, "pid_started") or 0),
            progress=progress,
            end=newest_end(ends, self.nonce(attempt_id, mark)) if ends else None,
            runs=runs_of(told),
        )

    def attempts(self) -> list[str]:
        """All attempts that the spool has a folder for; what else lies there is passed over."""
        with trouble("list the spool", self.root):
            try:
                with os.scandir(self.root / "attempts") as found:
                    return sorted(e.name for e in found if ATTEMPT_ID.fullmatch(e.name) and e.is_dir())
            except FileNotFoundError:
                return []

    def document(self, attempt_id: str) -> dict[str, Any] | None:
        """The attempt's job file, whoever holds it; ``None`` if there is none that can be read."""
        folder = self.place(attempt_id)
        with trouble("read the job file", folder):
            mark = owner_mark(folder)
            if not mark:
                return None
            with open(f"{folder}/{mark}", "rb", buffering=0) as file:
                content = file.readall() if os.fstat(file.fileno()).st_size <= MAX_JOB_BYTES else b""
        try:
            return jobfile.decode(content)
        except ValueError:
            return None

    def story(self, attempt_id: str) -> Dataset | None:
        """The dataset as the job file tells it: for an attempt that the journal does not know."""
        document = self.document(attempt_id)
        if document is None or document.get("attempt_id") != attempt_id:  # none, or a folder that was copied
            return None
        try:
            return jobfile.story(document)
        except ValueError:
            return None

    def remove(self, attempt_id: str) -> None:
        """Remove its folder, for good; a runner that comes later finds nothing to claim."""
        folder = self.folder(attempt_id)
        self._known.forget(attempt_id)
        with trouble("remove the attempt", folder), contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                (folder / "job.json").rename(folder / "revoked")
            shutil.rmtree(folder)

    def has(self, attempt_id: str) -> bool:
        """Is there a folder of that name, whatever is in it?"""
        return stat_of(self.place(attempt_id)) is not None

    def nonce(self, attempt_id: str, mark: str) -> str:
        """The run's nonce from its job file; "" where nothing tells."""
        told = self._known.get(attempt_id)
        if told is None:
            told = {} if mark == "revoked" else self.told(attempt_id)
        return str(told.get("nonce", ""))

    def told(self, attempt_id: str) -> dict[str, Any]:
        """Its job file without what may be long, for the functions of :mod:`jobfile`; empty where nothing
        tells."""
        told = self._known.get(attempt_id)
        if told is None and (document := self.document(attempt_id)) is not None:
            told = self._known.put(attempt_id, document)
        return told or {}

    def texts(self, attempt_id: str) -> dict[str, str]:
        """The texts that the manifest keeps, by name: for them its job file is read again."""
        keeps = self.told(attempt_id).get("keeps_texts")
        return jobfile.kept_texts(self.document(attempt_id) or {}) if keeps else {}


def stat_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def names_in(folder: str | Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def owner_mark(folder: str | Path) -> str:
    """``claimed.<job id>``, ``revoked`` or ``job.json``: who holds the attempt; empty if nobody yet."""
    return mark_among(names_in(folder))


def mark_among(names: list[str]) -> str:
    if claimed := [name for name in names if name.startswith("claimed.") and name != "claimed."]:
        return min(claimed)
    return "revoked" if "revoked" in names else "job.json" if "job.json" in names else ""


@contextlib.contextmanager
def trouble(what: str, path: str | Path) -> Iterator[None]:
    """Errors of the file system as Temporary, with a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        raise refused(what, path, error) from error


def refused(what: str, path: str | Path, error: OSError) -> Temporary:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room there (tiltd prune shows what can go); nothing is submitted meanwhile"
    else:
        advice = "see that the spool is mounted and that the daemon may write there"
    words = error.strerror or type(error).__name__
    return Temporary(f"Cannot {what} in the spool {str(path)!r}: {words}; {advice}.")
