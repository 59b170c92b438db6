"""Resource manager ``local``: this machine as one node or several, without any batch system.

A job is the runner in a session of its own, so it outlives the daemon.  What is known of it stands in
``SPOOL/local/JOB_ID.json``; a restart finds the process again by pid and start, or, where the daemon died
between the start and the record, by its command line.  ``job_id`` is ``local-ATTEMPT_ID``: always the same
for an attempt, so that submitting twice cannot make two.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from tiltd.daemon.clock import Clock
from tiltd.daemon.core.model import Job, JobSpec, JobState, NodeInfo, Record
from tiltd.plugins import processes
from tiltd.plugins.api import Context, JobsSeen, Permanent, Temporary
from tiltd.plugins.machine import LocalNode, local_nodes, node_info, sharers
from tiltd.plugins.processes import Process

_log = logging.getLogger(__name__)
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}")
_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TZ|TMPDIR|LD_LIBRARY_PATH|CUDA_\w+|IMOD_\w+|AUTODOC_DIR|MANPATH"
)
"""What a job sees of the daemon's environment; not its PYTHON*, NOTIFY_SOCKET, credentials and the like."""


class Entry(Record):
    """One job as recorded.  ``slots`` are the node's cores it was given.  A job ended when ``ended_at`` is
    set: then ``exit_status`` is ``None`` if nobody was there to be told."""

    job_id: str
    job_name: str
    attempt_id: str
    node: str
    slots: tuple[int, ...]
    process: Process
    started_at: float
    ended_at: float | None = None
    exit_status: int | None = None


class LocalManager:
    """``settings`` is the ``[local]`` table: ``node`` (see :func:`tiltd.plugins.machine.local_nodes`) and
    ``nice`` (0 to 19, default 5).  All work is done in one thread of its own, in order.

    Ended jobs are listed for ``keep_completed_seconds``, or until their attempt folder is removed.
    Raises Permanent for settings that cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        for key in sorted(set(settings) - {"node", "nice"}):
            raise Permanent(f"[local] unknown key {key!r}; known are node, nice")
        self.clock: Callable[[], float] = Clock().now  # a wall clock that jumps moves no instant
        self.grace_seconds = 15.0
        self.keep_completed_seconds = 86400.0
        self._nice = settings.get("nice", 5)
        if isinstance(self._nice, bool) or not isinstance(self._nice, int) or not 0 <= self._nice <= 19:
            raise Permanent(f"[local] nice: must be a whole number from 0 to 19, not {self._nice!r}")
        self._owner = context.owner
        self._attempts = os.path.join(context.spool_folder, "attempts")
        self._records = os.path.join(context.spool_folder, "local")
        self._nodes = {node.name: node for node in local_nodes(settings, context)}
        self._entries: dict[str, Entry] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._forgot_at = 0.0
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="local")
        self._adopt()

    # -- the protocol --------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec) -> str:
        here = contextvars.copy_context()  # so that the worker's lines of the log tell the dataset, too
        return await asyncio.get_running_loop().run_in_executor(self._worker, here.run, self._start, spec)

    async def jobs(self) -> JobsSeen:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._look)

    async def nodes(self) -> Sequence[NodeInfo]:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._look_at_nodes)

    async def cancel(self, job_id: str) -> None:
        """TERM to the runner, which cleans up after itself; after ``grace_seconds`` KILL to it, and after
        as long again (its janitor's time) KILL to whatever is left of its tree.  Returns after the TERM."""
        loop = asyncio.get_running_loop()
        family = await loop.run_in_executor(self._worker, self._terminate, job_id)
        if family and job_id not in self._endings:
            task = loop.create_task(self._make_sure(family), name=f"end of {job_id}")
            self._endings[job_id] = task
            task.add_done_callback(lambda _: self._endings.pop(job_id, None))

    # -- starting ------------------------------------------------------------------------------------

    def _start(self, spec: JobSpec) -> str:
        job_id = f"local-{spec.attempt_id}"
        if job_id in self._entries or self._ran_already(spec, job_id):
            return job_id
        node = self._node_for(spec)
        slots = node.pick(spec.cores, self._slots_taken(node.name))
        try:
            child = processes.start(
                [sys.executable, spec.runner_path, spec.attempt_folder],
                folder=spec.attempt_folder,
                log_path=os.path.join(spec.attempt_folder, "runner.log"),
                environment=_environment(job_id, spec, node.name, slots),
                cpus={node.cpus[slot] for slot in slots},
                nice=self._nice,
            )
        except FileNotFoundError as error:
            raise Permanent(f"cannot start {job_id}: {error.filename} is not there") from error
        except OSError as error:
            raise Temporary(f"cannot start {job_id}: {error.strerror}", delay_seconds=30.0) from error
        seen = processes.look(child.pid)
        self._children[job_id] = child
        self._record(
            Entry(
                job_id=job_id,
                job_name=spec.job_name,
                attempt_id=spec.attempt_id,
                node=node.name,
                slots=slots,
                process=seen[0] if seen else Process(pid=child.pid, started=""),
                started_at=self.clock(),
            )
        )
        return job_id

    def _ran_already(self, spec: JobSpec, job_id: str) -> bool:
        """Whether this attempt was claimed before, though its record is gone.  Raises Permanent for an
        attempt that cannot be started."""
        if not _ATTEMPT_ID.fullmatch(spec.attempt_id):
            raise Permanent(f"{spec.attempt_id!r} is no id of an attempt")
        folder = spec.attempt_folder
        if folder != os.path.join(self._attempts, spec.attempt_id):
            raise Permanent(f"the folder of attempt {spec.attempt_id} is not {folder!r}; is spool_dir right?")
        try:
            if os.path.lexists(os.path.join(folder, f"claimed.{job_id}")):
                return True
            Path(folder, "job.json").stat()
        except FileNotFoundError:
            raise Permanent(
                f"{folder} has no job.json: the attempt was revoked, or its folder removed"
            ) from None
        except OSError as error:
            raise Temporary(f"cannot read {folder}: {error.strerror}", delay_seconds=30.0) from error
        return False

    def _node_for(self, spec: JobSpec) -> LocalNode:
        if not spec.nodes:
            return max(self._nodes.values(), key=lambda node: node.cores - len(self._slots_taken(node.name)))
        if len(spec.nodes) > 1:
            raise Permanent(f"the resource manager 'local' runs a job on one node, not on {len(spec.nodes)}")
        if spec.nodes[0] not in self._nodes:
            raise Permanent(f"no [[local.node]] is named {spec.nodes[0]!r}; known: {', '.join(self._nodes)}")
        return self._nodes[spec.nodes[0]]

    def _slots_taken(self, node: str) -> list[int]:
        return [
            slot
            for entry in self._entries.values()
            if entry.node == node and entry.ended_at is None
            for slot in entry.slots
        ]

    # -- looking -------------------------------------------------------------------------------------

    def _look(self) -> JobsSeen:
        asked_at = self.clock()
        listed = [self._job(entry, asked_at) for entry in tuple(self._entries.values())]
        self._forget(asked_at)
        return JobsSeen(jobs=tuple(listed), complete=True, asked_at=asked_at)

    def _job(self, entry: Entry, now: float) -> Job:
        seen = None
        if entry.ended_at is None:
            child = self._children.get(entry.job_id)
            status = child.poll() if child else None  # reaps it
            seen = processes.look(entry.process.pid) if status is None else None
            if seen is None or seen[0] != entry.process:
                seen = None
                entry = self._ended(entry, now, status)
        letter = seen[1] if seen else "C"
        state = {"C": JobState.COMPLETED, "T": JobState.SUSPENDED}.get(letter, JobState.RUNNING)
        return Job(
            job_id=entry.job_id,
            job_name=entry.job_name,
            owner=self._owner,
            state=state,
            exec_host=(entry.node,),
            exit_status=_exit_status(entry.exit_status),
            comment=_comment(entry),
            submitted_at=entry.started_at,
            started_at=entry.started_at,
            ended_at=entry.ended_at,
            native_state=letter if letter in "CT" else "R",
            start_count=1,
        )

    def _ended(self, entry: Entry, now: float, status: int | None) -> Entry:
        if (child := self._children.pop(entry.job_id, None)) and status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(timeout=1.0)  # a zombie already: this only fetches its status
        entry = msgspec.structs.replace(entry, ended_at=now, exit_status=status)
        self._record(entry)
        return entry

    def _forget(self, now: float) -> None:
        """Drop the records of ended jobs that nobody will ask for any more."""
        if 0.0 <= now - self._forgot_at < 60.0:
            return
        self._forgot_at = now
        for entry in [entry for entry in self._entries.values() if entry.ended_at is not None]:
            old = now - (entry.ended_at or now) > self.keep_completed_seconds
            if old or not os.path.lexists(os.path.join(self._attempts, entry.attempt_id)):
                del self._entries[entry.job_id]
                with contextlib.suppress(OSError):
                    Path(self._record_path(entry.job_id)).unlink()

    def _look_at_nodes(self) -> tuple[NodeInfo, ...]:
        self._look()
        at = self.clock()
        shared = sharers(tuple(self._nodes.values()))
        return tuple(
            node_info(node, len(self._slots_taken(node.name)), shared[node.name], at)
            for node in self._nodes.values()
        )

    # -- ending --------------------------------------------------------------------------------------

    def _terminate(self, job_id: str) -> list[Process]:
        entry = self._entries.get(job_id)
        if entry is None or entry.ended_at is not None:
            return []
        family = processes.family(entry.process)
        try:
            processes.send(entry.process, signal.SIGTERM)
            processes.send(entry.process, signal.SIGCONT)  # a stopped one would not hear it
        except PermissionError:
            raise Permanent(
                f"{job_id} belongs to another user; end it by hand: kill {entry.process.pid}"
            ) from None
        return family

    async def _make_sure(self, family: list[Process]) -> None:
        await self._gone(family)
        # Children may have come since; whoever is still in the tree is known before the root is killed.
        known = {*family, *processes.family(family[0])}
        _kill(family[:1])
        await self._gone(known)
        _kill(known)

    async def _gone(self, family: Iterable[Process]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.grace_seconds
        while any(map(processes.alive, family)) and loop.time() < until:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(min(0.1, self.grace_seconds))

    # -- records -------------------------------------------------------------------------------------

    def _record_path(self, job_id: str) -> str:
        return os.path.join(self._records, f"{job_id}.json")

    def _record(self, entry: Entry) -> None:
        """Remember an entry, durably.  Where the spool cannot take it (full), memory and the processes'
        command lines must do, and the log says so."""
        self._entries[entry.job_id] = entry
        path = self._record_path(entry.job_id)
        try:
            Path(self._records).mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path + ".new", "w", encoding="ascii") as file:
                json.dump(msgspec.to_builtins(entry), file)
                file.flush()
                os.fsync(file.fileno())
            Path(path + ".new").rename(path)
            _sync_folder(self._records)
        except OSError as error:
            _log.warning("cannot write %s: %s; free space in spool_dir", path, error.strerror)

    def _adopt(self) -> None:
        """Read all records, then look among the processes for runners without one."""
        for name in _names(self._records):
            if name.endswith(".json"):
                self._read_record(os.path.join(self._records, name))
        for process, words, environment in processes.with_command(self._attempts):
            attempt_id = os.path.basename(words[2])
            job_id = f"local-{attempt_id}"
            # A runner forks (its janitor), and a fork has the same command line: the oldest is the runner.
            if job_id not in self._entries and environment.get("TILTD_JOB_ID") == job_id:
                node = environment.get("TILTD_NODE", "")
                slots = environment.get("TILTD_SLOTS", "").split(",")
                self._record(
                    Entry(
                        job_id=job_id,
                        job_name=environment.get("TILTD_JOB_NAME", ""),
                        attempt_id=attempt_id,
                        node=node,
                        slots=tuple(int(slot) for slot in slots if slot.isascii() and slot.isdigit()),
                        process=process,
                        started_at=self.clock(),
                    )
                )

    def _read_record(self, path: str) -> None:
        try:
            with open(path, encoding="ascii") as file:
                entry = msgspec.convert(json.load(file), Entry)
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("cannot read %s (%s); the job is looked for among the processes", path, error)
            return
        if entry.job_id == os.path.basename(path).removesuffix(".json"):
            self._entries[entry.job_id] = entry


def _environment(job_id: str, spec: JobSpec, node: str, slots: Sequence[int]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return kept | {
        "TILTD_JOB_ID": job_id,
        "TILTD_JOB_NAME": spec.job_name,
        "TILTD_NODE": node,
        "TILTD_SLOTS": ",".join(map(str, slots)),
    }


def _exit_status(status: int | None) -> int | None:
    """As Torque tells it: 256 + the number of the signal that ended the job."""
    return 256 - status if status is not None and status < 0 else status


def _comment(entry: Entry) -> str:
    if entry.ended_at is not None and entry.exit_status is None:
        return "ended while no daemon was there to be told its exit status"
    if entry.exit_status is not None and entry.exit_status < 0:
        return f"ended by signal {-entry.exit_status}"
    return ""


def _kill(family: Iterable[Process]) -> None:
    for process in family:
        with contextlib.suppress(PermissionError):
            processes.send(process, signal.SIGKILL)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
