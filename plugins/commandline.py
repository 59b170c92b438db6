"""Runs the commands of a batch system: the one place of the plugins where programs of a dialect are started.

A dialect brings argument lists and parsers, which are pure and tested with captured text, and a table that
says what its exit codes mean.  What is common to all stands here: no shell, a session of its own that is
killed whole at the time-out, output that is bounded and may be parsed while it comes, a plain environment,
few at once, not too many a second, and a pause for all when the server is in trouble.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tiltd.daemon.core.model import Record
from tiltd.daemon.text import one_line
from tiltd.plugins.api import CommandCount, Temporary
from tiltd.plugins.spawned import Spawned, keep_open_files_to_ourselves

CHUNK_BYTES = 1 << 16
ERROR_BYTES = 1 << 16
"""Of what a command writes to its error output, no more than this is kept."""
AFTER_END_SECONDS = 0.5
"""A child that a command left behind may hold its pipes open; they are read for no longer than that."""
PIECES_AT_ONCE = 16
"""So many hold what a pipe of the usual size does, and more is not read before others have their turn."""
LONG_SECONDS = 0.5
"""A command that runs for longer is watched by its pipes as well, which it may have filled."""
LOOK_SECONDS = 0.02
"""How often it is asked whether a command has ended where the kernel does not tell."""
REAPED_SECONDS = 0.05
TICK_SECONDS = 0.01
"""Nobody is put to sleep for less than that."""
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
    """At most ``burst`` at once, then ``per_second``, give or take a tick; who comes waits for its turn, in
    order."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1.0 / per_second
        self._slack = self._interval * max(0, burst - 1)
        self._next_at = 0.0

    async def take(self) -> None:
        now = asyncio.get_running_loop().time()
        turn_at = max(self._next_at, now - self._slack)
        self._next_at = turn_at + self._interval
        if turn_at > now + TICK_SECONDS:
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
        keep_open_files_to_ourselves()
        kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
        kept["PATH"] = ":".join(part for part in (folders, kept.get("PATH", os.defpath)) if part)
        self.environment = kept | {"LC_ALL": "C"} | dict(environment)
        self._gate = asyncio.Semaphore(at_once)
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}
        self._encoded = {os.fsencode(name): os.fsencode(value) for name, value in self.environment.items()}
        self._programs: dict[str, str] = {}
        self._undead: list[Spawned] = []

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
                command = self._start(argv)
            except OSError as error:
                self.count(argv[0], "not_started", 0.0)
                name = os.path.basename(argv[0])
                raise NotStarted(f"cannot start {name}: {error.strerror}", delay_seconds=60.0) from error
            reader = _Reader(command, timeout_seconds, max_bytes, sink)
            try:
                await reader.ended()
            finally:
                reader.close()
                self._end(command)
            return Ran(
                command=os.path.basename(argv[0]),
                exit_code=-signal.SIGKILL if command.exit_code is None else command.exit_code,
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

    def _start(self, argv: Sequence[str]) -> Spawned:
        self._undead = [command for command in self._undead if command.poll() is None]
        return Spawned(argv, self._program(argv[0]), self._encoded)

    def _program(self, name: str) -> str:
        """Its path.  A bare name is looked for in the folders once; whatever is found is started as it is."""
        if "/" in name:
            return name
        known = self._programs.get(name)
        if known is None or not os.access(known, os.X_OK):
            known = shutil.which(name, path=self.environment["PATH"])
            if known is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._programs[name] = known
        return known

    def _end(self, command: Spawned) -> None:
        """Kill the whole group where the command itself has not ended; it is reaped now or later."""
        if command.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(command.pid, signal.SIGKILL)
            if not command.reaped_within(REAPED_SECONDS):  # in a call that no signal ends, as on a dead NFS
                self._undead.append(command)


class _Reader:
    """The end of one process and its two pipes, as callbacks of the loop; no thread, no child watcher.

    A command is watched for its end alone, by which its pipes hold what it wrote: it costs one turn of the
    loop, where its pipes would cost three.  They are watched for a sink, which takes what comes as it comes,
    for a command that runs for long, and where the kernel has no event for the end of a process.
    """

    def __init__(
        self,
        command: Spawned,
        timeout_seconds: float,
        max_bytes: int,
        sink: Callable[[bytes], None] | None,
    ) -> None:
        self.out, self.err = bytearray(), bytearray()
        self.timed_out = self.cut = False
        self._command = command
        self._left_bytes = max_bytes
        self._sink = sink or self.out.extend
        self._failure: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._pipes = {command.out, command.err}
        self._watched: set[int] = set()
        self._limit = self._loop.call_later(timeout_seconds, self._late)
        self._pid_fd = _pid_fd(command.pid)
        if self._pid_fd >= 0:
            self._watch(self._pid_fd, self._look)
            self._next = self._loop.call_later(LONG_SECONDS, self._watch_pipes)
        else:
            self._next = self._loop.call_later(LOOK_SECONDS, self._look)
        if sink is not None or self._pid_fd < 0:
            self._watch_pipes()

    async def ended(self) -> None:
        """Wait until it has ended, wrote too much or took too long, or its sink failed (whose exception is
        raised)."""
        await self._over
        if self._failure is not None:
            raise self._failure

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _late(self) -> None:
        self.timed_out = not self._over.done()
        self._finish()

    def _look(self) -> None:
        """Whether it has ended; then the rest is read, with little time where a child holds the pipes."""
        if self._command.poll() is None:
            if self._pid_fd < 0:
                self._next = self._loop.call_later(LOOK_SECONDS, self._look)
            return
        self._unwatch(self._pid_fd)
        for pipe in tuple(self._pipes):
            pieces = 1
            while self._readable(pipe) and pieces < PIECES_AT_ONCE:
                pieces += 1
        if not self._pipes:
            self._finish()
        elif not self._over.done():
            self._watch_pipes()
            self._next.cancel()
            self._next = self._loop.call_later(AFTER_END_SECONDS, self._finish)

    def _watch_pipes(self) -> None:
        for pipe in self._pipes:
            self._watch(pipe, self._readable, pipe)

    def _readable(self, pipe: int) -> bool:
        """Read a piece, and whether there may be more."""
        try:
            piece = os.read(pipe, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            self._closed(pipe)
        elif pipe == self._command.err:
            self.err += piece[: max(0, ERROR_BYTES - len(self.err))]
        else:
            self._take(piece)
        return bool(piece) and not self.cut

    def _take(self, piece: bytes) -> None:
        self._left_bytes -= len(piece)
        try:
            self._sink(piece)
        except Exception as error:  # a parser's bug is told to who waits, not to the loop
            self._failure = error
        if self._left_bytes < 0 or self._failure is not None:
            self.cut = True
            self._finish()

    def _closed(self, pipe: int) -> None:
        self._unwatch(pipe)
        self._pipes.discard(pipe)
        if not self._pipes and self._command.exit_code is not None:
            self._finish()

    def _watch(self, file: int, call: Callable[..., object], *arguments: int) -> None:
        if file not in self._watched:
            self._watched.add(file)
            self._loop.add_reader(file, call, *arguments)

    def _unwatch(self, file: int) -> None:
        if file in self._watched:
            self._watched.discard(file)
            self._loop.remove_reader(file)

    def close(self) -> None:
        self._limit.cancel()
        self._next.cancel()
        for file in self._watched:
            self._loop.remove_reader(file)
        if self._pid_fd >= 0:
            os.close(self._pid_fd)
        self._command.close()


def _pid_fd(pid: int) -> int:
    """A file that can be read from once the process has ended; -1 where the kernel has none, or no more."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1
