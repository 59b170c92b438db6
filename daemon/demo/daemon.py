"""The real daemon as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from tiltd.daemon.client import Client, NotRunning

from .site import Site


class DaemonFailed(Exception):
    """It did not start, or not end, as it should.  The message is for a person."""


class Daemon:
    """``tiltd run`` under a site, its output in the site's log."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.client = Client(site.socket)
        with open(site.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tiltd.daemon", "run", "--config", str(site.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, limit_seconds: float = 30.0) -> None:
        """Raises DaemonFailed when it ends, or is not ready in time."""
        deadline = time.monotonic() + limit_seconds
        while not self._is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DaemonFailed(f"The daemon is not ready after {limit_seconds:.0f} s.\n{self.log_tail()}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return self.client.text("/readyz")[0] == 200
        except NotRunning:
            return False

    def check_alive(self) -> None:
        """Raises DaemonFailed when it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise DaemonFailed(f"The daemon ended with exit code {code}.\n{self.log_tail()}")

    def stop(self, limit_seconds: float = 30.0) -> int:
        """Ask it to end, as systemd does, and return its exit code; a deaf one is killed (-9)."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        text = self.site.log.read_text(encoding="utf-8", errors="replace")
        tail = text.splitlines()[-lines:]
        return f"The end of {self.site.log}:\n  " + "\n  ".join(tail) if tail else ""


@contextlib.contextmanager
def running(site: Site) -> Iterator[Daemon]:
    """A daemon that is stopped whatever happens; SIGTERM and SIGHUP end the work in it as Ctrl-C does."""
    with _ended_by(signal.SIGTERM, signal.SIGHUP):
        daemon = Daemon(site)
        try:
            yield daemon
        finally:
            if daemon._process.poll() is None:
                daemon.stop()


@contextlib.contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """A signal that would end this program at once, and leave the daemon behind, is a KeyboardInterrupt."""
    mine = threading.current_thread() is threading.main_thread()  # no other thread may ask for signals
    before = {
        each: signal.signal(each, signal.default_int_handler)
        for each in signals
        if mine and signal.getsignal(each) == signal.SIG_DFL
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
