"""A program, started: a session of its own, two pipes for what it writes, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""What is ignored stays ignored in a program that is started, unless it is set back."""


def keep_open_files_to_ourselves() -> None:
    """What whoever started us left open is not handed on: ``posix_spawn`` closes nothing, and Python opens
    nothing that could be inherited."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            if int(name) > 2:
                os.set_inheritable(int(name), False)


class Spawned:
    """A process that was started, in a session of its own, with its output to be read from two pipes.

    ``posix_spawn`` rather than :mod:`subprocess`: a third of the cost, of which a submission is made.  Raises
    OSError when it cannot be started.
    """

    def __init__(self, argv: Sequence[str], program: str, environment: Mapping[bytes, bytes]) -> None:
        self.exit_code: int | None = None
        (self.out, out), (self.err, err) = os.pipe(), os.pipe()
        try:
            self.pid = os.posix_spawn(
                program,
                list(argv),
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ],
                setsid=True,
                setsigdef=IGNORED_BY_PYTHON,
            )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(out)
            os.close(err)
        os.set_blocking(self.out, False)
        os.set_blocking(self.err, False)

    def poll(self) -> int | None:
        """Its exit code once it has ended (negative for a signal), and is reaped."""
        if self.exit_code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else reaped it: how it ended is not known
                self.exit_code = -signal.SIGKILL
                return self.exit_code
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def reaped_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        return self.exit_code is not None

    def close(self) -> None:
        os.close(self.out)
        os.close(self.err)
