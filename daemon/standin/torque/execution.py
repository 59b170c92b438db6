"""Jobs as real processes, each in a session of its own, on nodes that are folders.

As on a node: the script lies in the mom's folder, the working folder is the home, the umask 077, output goes
to the mom's spool and is copied back at the end.  What a job leaves behind (a janitor in a session of its
own) lives on; only a node that dies takes it along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from .records import HOST, BatchJob, Node, size_bytes

MARK = "TILTD_STANDIN_NODE"
"""In the environment of every process of a node: by this it is found when the node dies."""


class Processes:
    """``finished(job, status, start_count)`` is called at the end of each."""

    def __init__(self, finished: Callable[[BatchJob, int, int], None]) -> None:
        self._finished = finished
        self._running: dict[int, asyncio.Task[None]] = {}

    def start(self, job: BatchJob, nodes: Sequence[Node]) -> int:
        """Write script and node file, and start it; a script that cannot run ends with 127 or 126."""
        home = Path(nodes[0].home)
        script = home / "mom_priv" / f"{job.job_id}.SC"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(job.script, "utf-8", "surrogateescape")
        script.chmod(0o700)
        node_file = home / "aux" / job.job_id
        node_file.parent.mkdir(exist_ok=True)
        node_file.write_text("".join(f"{name}\n" * len(taken) for name, taken in job.hosts))
        environment = _environment(job, nodes, str(node_file))
        pid = _spawn(job, _argv(job, script), environment, _spooled(home, job, "OU"), _error(home, job))
        if job.number in self._running:
            self._running[job.number].cancel()
        self._running[job.number] = asyncio.create_task(self._wait(job, pid, job.start_count))
        return pid

    async def _wait(self, job: BatchJob, pid: int, start_count: int) -> None:
        status = await _ended(pid)
        self._finished(job, status, start_count)

    def signal(self, job: BatchJob, number: int) -> None:
        """To the whole session, as a mom does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if job.session_id > 1:
                os.killpg(job.session_id, number)

    def kill_node(self, node: Node) -> None:
        """Everything that ever was started there, wherever it has gone; costs a look at every process."""
        mark = f"{MARK}={node.home}".encode()
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        os.kill(int(name), signal.SIGKILL)

    def deliver(self, job: BatchJob) -> bool:
        """Copy what it said to where it was asked for; where that cannot be done it stays undelivered."""
        home = Path(self._home(job))
        pairs = [(_spooled(home, job, "OU"), job.output_path)]
        if job.join != "oe":
            pairs.append((_spooled(home, job, "ER"), job.error_path))
        for name in (f"mom_priv/{job.job_id}.SC", f"aux/{job.job_id}"):
            (home / name).unlink(missing_ok=True)
        return min([copied_back(spooled, target) for spooled, target in pairs])

    @staticmethod
    def _home(job: BatchJob) -> str:
        return job.homes[0] if job.homes else "/nonexistent"

    def free_bytes(self, node: Node) -> int:
        """The node's size less every block below its scratch folder."""
        return node.pretend.scratch_bytes - used_bytes(node.scratch)


def used_bytes(folder: str) -> int:
    """Blocks of all files below; what vanishes meanwhile does not count."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def _spooled(home: Path, job: BatchJob, ending: str) -> Path:
    folder = home / "spool"
    folder.mkdir(exist_ok=True)
    return folder / f"{job.job_id}.{ending}"


def _error(home: Path, job: BatchJob) -> Path:
    return _spooled(home, job, "OU" if job.join == "oe" else "ER")


def _argv(job: BatchJob, script: Path) -> list[str]:
    """The script runs under its own first line, else under a shell; ``-S`` names another."""
    arguments = shlex.split(job.arguments)
    if job.shell or not job.script.startswith("#!"):
        return [job.shell or "/bin/sh", str(script), *arguments]
    return [str(script), *arguments]


def _spawn(job: BatchJob, argv: list[str], environment: dict[str, str], output: Path, error: Path) -> int:
    """fork and exec without a thread or a pipe: a server starts many at once."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.umask(0o077)
        os.chdir(environment["HOME"])
        _limit(job)
        os.closerange(3, 1 << 12)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        os.dup2(os.open(output, append, 0o600), 1)
        os.dup2(os.open(error, append, 0o600), 2)
        os.execve(argv[0], argv, environment)
    except BaseException:
        os._exit(127)


def _limit(job: BatchJob) -> None:
    """``file=`` is the most that any single file may have, ``mem=`` the most of data."""
    for name, limits in _LIMITS.items():
        if name in job.resources:
            for limit in limits:
                value = size_bytes(job.resources[name])
                resource.setrlimit(limit, (value, value))


_LIMITS = {"file": (resource.RLIMIT_FSIZE,), "mem": (resource.RLIMIT_DATA, resource.RLIMIT_RSS)}


async def _ended(pid: int) -> int:
    """Wait for it: 0-255, or 256 + the signal that ended it."""
    descriptor = os.pidfd_open(pid)
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it has ended
    return code if code >= 0 else 256 - code


def _environment(job: BatchJob, nodes: Sequence[Node], node_file: str) -> dict[str, str]:
    """As seen inside a job: nothing of the daemon's, no TMPDIR."""
    own = {name: value for name, value in job.variables.items() if name.isidentifier()}
    return own | {
        "ENVIRONMENT": "BATCH", "HOME": str(Path.home()), "HOSTNAME": nodes[0].name,
        "LOGNAME": job.user, "USER": job.user, "SHELL": "/bin/sh", "LANG": "en_US",
        "PATH": os.environ.get("PATH", os.defpath), "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBID": job.job_id, "PBS_JOBNAME": job.name, "PBS_NODEFILE": node_file, "PBS_NODENUM": "0",
        "PBS_NP": str(job.processors), "PBS_NUM_NODES": str(len(nodes)),
        "PBS_NUM_PPN": str(job.asks[0].ppn), "PBS_QUEUE": job.queue, "PBS_TASKNUM": "1",
        "PBS_VERSION": "TORQUE-6.1.3.h5", "PBS_VNODENUM": "0", "PBS_WALLTIME": str(job.walltime_seconds),
        MARK: nodes[0].home,
    }  # fmt: skip


def copied_back(spooled: Path, target: str) -> bool:
    """Bring a job's output from the node's spool to ``host:path``; false if it cannot be delivered."""
    host, _, path = target.partition(":")
    if host != HOST:
        return False
    try:
        if spooled.exists():
            # Written into, not moved over: the target may be /dev/null, which is to stay what it is.
            with spooled.open("rb") as told, open(path, "wb", opener=_owner_only) as kept:
                shutil.copyfileobj(told, kept)
            spooled.unlink()
    except OSError:
        return False
    return True


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
