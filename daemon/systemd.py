"""What a service tells systemd: ready, alive, reloading, stopping, and how it is, in a sentence.

The protocol is sd_notify(3): one datagram of ``KEY=VALUE`` lines to the unix socket that ``NOTIFY_SOCKET``
names.  Without one nothing is sent.  The variables are taken out of the environment, so that no job inherits
the socket, and nothing but the daemon can say that it is alive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

from .text import one_line

SEND_SECONDS = 1.0
"""systemd's queue of datagrams may be full; it is waited for that long, and then the word is lost."""
STATUS_CHARACTERS = 300


class Systemd:
    """``address`` is the socket (``@`` for an abstract one), ``""`` for none; ``watchdog_seconds`` is the
    time after which a silent daemon is ended, ``None`` if nobody watches.  Nothing here ever raises."""

    def __init__(
        self,
        address: str = "",
        watchdog_seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic = monotonic
        self._beat_at = 0.0
        self._status = ""
        self._up = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Systemd:
        """Takes ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` away from ``environ``."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        watched_pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        if not watchdog.isascii() or not watchdog.isdigit() or watched_pid != str(os.getpid()):
            return cls(address)
        return cls(address, int(watchdog) / 1e6 or None)

    @property
    def beat_seconds(self) -> float | None:
        """How often to say that one is alive: well within the watchdog's time."""
        return None if self.watchdog_seconds is None else self.watchdog_seconds / 4

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        """To be followed by :meth:`ready`, whatever comes of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def turned(self) -> None:
        """The loop has made a turn: the first says that all is up, every one that it is alive.  One that
        hangs is ended by systemd, and started again."""
        if not self._up:
            self._up = True
            self.ready()
        self.beat()

    def beat(self) -> None:
        """``WATCHDOG=1``, at most every ``beat_seconds``: it may be called at every turn of a busy loop."""
        now = self._monotonic()
        if self.beat_seconds is not None and now - self._beat_at >= self.beat_seconds:
            self._beat_at = now
            self._send("WATCHDOG=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent when it is another one than before."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={one_line(sentence)[:STATUS_CHARACTERS]}")

    def extend(self, seconds: float) -> None:
        """A start or a stop takes longer: nothing is ended for that long from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.sendto(text.encode("utf-8", "replace"), self._address)
