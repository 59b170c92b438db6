"""Runs the commands of a batch system: the one place of the plugins where programs of a dialect are started.

A dialect brings argument lists and parsers, which are pure and tested with captured text, and a table that
says what its exit codes mean.  What is common to all stands here: no shell, a session of its own that is
killed whole at the time-out, output that is bounded and may be parsed while it comes, a plain environment,
few at once, not too many a second, and a pause for all when the server is in trouble.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tiltd.daemon.core.model import Record
from tiltd.daemon.text import one_line
from tiltd.plugins.api import CommandCount, Temporary

CHUNK_BYTES = 1 << 16
ERROR_BYTES = 1 << 16
"""Of what a command writes to its error output, no more than this is kept."""
AFTER_END_SECONDS = 0.5
"""A child that a command left behind may hold its pipes open; they are read for no longer than that."""
_KEPT = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|TZ|LD_LIBRARY_PATH|(PBS|TORQUE|MAUI|MOAB)\w*", re.ASCII)

Kind = Literal["done", "gone", "permanent", "wait", "retry", "unsure"]


class Rule(Record):
    """What one exit code means.  ``reason`` is a word that can be counted; ``remedy`` says what to do."""

    kind: Kind
    reason: str
    meaning: str
    remedy: str = ""


class Ran(Record):
    """One command, ended.  ``exit_code`` is negative for a signal, as in :mod:`subprocess`; ``cut`` when it
    wrote more than it may.  ``out`` is empty where a sink took it."""

    command: str
    exit_code: int
    out: bytes
    err: bytes
    seconds: float
    timed_out: bool = False
    cut: bool = False

    @property
    def killed(self) -> bool:
        return self.timed_out or self.cut or self.exit_code < 0

    @property
    def said(self) -> str:
        """Its last words as one printable line of at most 300 characters."""
        lines = [line.strip() for line in self.err.decode("utf-8", "replace").splitlines() if line.strip()]
        return one_line(lines[-1])[:300] if lines else ""


class NotStarted(Temporary):
    """The command is not there or could not be started: certainly nothing happened."""


class TokenBucket:
    """At most ``burst`` at once, then ``per_second``; who comes waits for its turn, in order."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1.0 / per_second
        self._slack = self._interval * max(0, burst - 1)
        self._next_at = 0.0

    async def take(self) -> None:
        now = asyncio.get_running_loop().time()
        turn_at = max(self._next_at, now - self._slack)
        self._next_at = turn_at + self._interval
        if turn_at > now:
            await asyncio.sleep(turn_at - now)


class BackOff:
    """A pause for everyone after trouble with the server: doubled at each, ended by any success."""

    def __init__(self, clock: Callable[[], float], first_seconds: float = 5.0, most_seconds: float = 300.0):
        self._clock = clock
        self._first = first_seconds
        self._most = most_seconds
        self._seconds = 0.0
        self._until = 0.0
        self.why = ""

    def left_seconds(self) -> float:
        return max(0.0, self._until - self._clock())

    def trouble(self, why: str) -> float:
        """Note one, and return the pause.  Those that were under way together count as one."""
        if not self.left_seconds():
            self._seconds = min(self._most, self._seconds * 2 or self._first)
            self._until = self._clock() + self._seconds
        self.why = why
        return self.left_seconds()

    def success(self) -> None:
        self._seconds = self._until = 0.0
        self.why = ""


class CommandLine:
    """Starts commands, at most ``at_once`` of them.  ``folders`` (as in PATH) are searched first;
    ``environment`` is added to what is passed on: PATH, HOME, the user's name, TZ and the batch system's own.
    """

    def __init__(self, folders: str = "", environment: Mapping[str, str] = {}, at_once: int = 16) -> None:
        kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
        kept["PATH"] = ":".join(part for part in (folders, kept.get("PATH", os.defpath)) if part)
        self.environment = kept | {"LC_ALL": "C"} | dict(environment)
        self._gate = asyncio.Semaphore(at_once)
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}
        self._undead: list[subprocess.Popen[bytes]] = []

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        max_bytes: int = 1 << 20,
        sink: Callable[[bytes], None] | None = None,
    ) -> Ran:
        """Run to its end, or to ours.  ``sink`` takes the output piece by piece.  Raises NotStarted.

        Whoever is cancelled meanwhile leaves nothing running.
        """
        async with self._gate:
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                process = self._start(argv)
            except OSError as error:
                self.count(argv[0], "not_started", 0.0)
                name = os.path.basename(argv[0])
                raise NotStarted(f"cannot start {name}: {error.strerror}", delay_seconds=60.0) from error
            reader = _Reader(process, max_bytes, sink)
            try:
                async with asyncio.timeout(timeout_seconds):
                    await reader.ended()
            except TimeoutError:
                reader.timed_out = True
            finally:
                reader.close()
                self._end(process)
            return Ran(
                command=os.path.basename(argv[0]),
                exit_code=-signal.SIGKILL if process.returncode is None else process.returncode,
                out=bytes(reader.out),
                err=bytes(reader.err),
                seconds=loop.time() - began,
                timed_out=reader.timed_out,
                cut=reader.cut,
            )

    def count(self, command: str, outcome: str, seconds: float) -> None:
        """One more command of this outcome, a word of a bounded set."""
        key = (os.path.basename(command), outcome)
        count, total = self._counts.get(key, (0, 0.0))
        self._counts[key] = (count + 1, total + seconds)

    def counts(self) -> list[CommandCount]:
        return [
            CommandCount(command=command, outcome=outcome, count=count, seconds=seconds)
            for (command, outcome), (count, seconds) in sorted(self._counts.items())
        ]

    def judge(self, ran: Ran, table: Mapping[int, Rule], otherwise: Rule) -> Rule:
        """What the end of a command means, counted.  A kill is never more than "unsure"."""
        if ran.killed:
            word = (
                "did not answer in time" if ran.timed_out else "wrote too much" if ran.cut else "was killed"
            )
            reason = "timeout" if ran.timed_out else "too_much" if ran.cut else "killed"
            rule = Rule(kind="unsure", reason=reason, meaning=f"{ran.command} {word}")
        else:
            rule = table.get(ran.exit_code, otherwise)
        self.count(ran.command, rule.reason, ran.seconds)
        return rule

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        self._undead = [process for process in self._undead if process.poll() is None]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the whole group where the command itself has not ended; it is reaped now or later."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:  # in a system call that no signal ends, as on a dead NFS
                self._undead.append(process)


class _Reader:
    """The two pipes and the end of one process, as callbacks of the loop; no thread, no child watcher."""

    def __init__(
        self, process: subprocess.Popen[bytes], max_bytes: int, sink: Callable[[bytes], None] | None
    ) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.out, self.err = bytearray(), bytearray()
        self.timed_out = self.cut = False
        self._process = process
        self._left_bytes = max_bytes
        self._sink = sink or self.out.extend
        self._loop = asyncio.get_running_loop()
        self._pipes = {process.stdout.fileno(), process.stderr.fileno()}
        self._error_pipe = process.stderr.fileno()
        self._gone = asyncio.Event()
        self._drained = asyncio.Event()
        self._failure: Exception | None = None
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            self._loop.add_reader(pipe, self._readable, pipe)
        self._pid_fd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._pid_fd = os.pidfd_open(process.pid)
            self._loop.add_reader(self._pid_fd, self._died)

    async def ended(self) -> None:
        """Wait until it has ended, wrote too much, or its sink failed (whose exception is raised)."""
        if self._pid_fd < 0:
            await self._drained.wait()
            while self._process.poll() is None:  # noqa: ASYNC110 - a kernel without pidfd tells no event
                await asyncio.sleep(0.02)
            self._gone.set()
        await self._gone.wait()
        if not self.cut:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTER_END_SECONDS):
                    await self._drained.wait()
        if self._failure is not None:
            raise self._failure

    def _died(self) -> None:
        self._loop.remove_reader(self._pid_fd)
        self._process.poll()
        self._gone.set()

    def _readable(self, pipe: int) -> None:
        try:
            piece = os.read(pipe, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._closed(pipe)
        elif pipe == self._error_pipe:
            self.err += piece[: max(0, ERROR_BYTES - len(self.err))]
        else:
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        self._left_bytes -= len(piece)
        try:
            self._sink(piece)
        except Exception as error:  # a parser's bug is told to who waits, not to the loop
            self._failure = error
        if self._left_bytes < 0 or self._failure is not None:
            self.cut = True
            self._gone.set()

    def _closed(self, pipe: int) -> None:
        self._loop.remove_reader(pipe)
        self._pipes.discard(pipe)
        if not self._pipes:
            self._drained.set()

    def close(self) -> None:
        for pipe in list(self._pipes):
            self._closed(pipe)
        if self._pid_fd >= 0:
            self._loop.remove_reader(self._pid_fd)
            os.close(self._pid_fd)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
