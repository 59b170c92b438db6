"""Where it listens: a unix socket for operators of this machine, and an address."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from tiltd.daemon.core.model import Dataset

from .app import Room
from .lookup import Lookup
from .view import Daemon

SOCKET_MODE = 0o660


class AddressInUse(OSError):
    """Another daemon, or another program, listens there; the message is a sentence."""


class Servers:
    """``await start()`` listens; ``await stop()`` finishes what runs and removes the socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.port = 0
        self.room: Room | None = None
        self._lookup = Lookup(daemon)
        self._runner: web.AppRunner | None = None
        self._bound = False

    async def start(self) -> None:
        """Raises AddressInUse, and OSError for a proxy's secret that cannot be read."""
        path, listen = self.daemon.settings.socket, self.daemon.settings.listen
        self.room = Room(self.daemon, self._lookup)
        runner = web.AppRunner(
            self.room.app(),
            access_log=None,
            shutdown_timeout=2.0,
            handle_signals=False,
            keepalive_timeout=30.0,
        )
        await runner.setup()
        self._runner = runner
        await web.SockSite(runner, unix_socket(path)).start()
        self._bound = True
        if listen.port:
            site = web.TCPSite(runner, listen.address, listen.port)
            try:
                await site.start()
            except OSError as error:
                await self.stop()
                raise AddressInUse(
                    f"cannot listen on {listen.address}:{listen.port} ({error.strerror}); "
                    "change port in [listen] of tiltd.toml, 0 for none"
                ) from None
            self.port = int(next(each[1] for each in runner.addresses if isinstance(each, tuple)))

    def changed(self, datasets: Iterable[Dataset], nodes: bool = False) -> None:
        """Tell the pages that are open."""
        if self.room is not None:
            self.room.hub.publish(datasets, nodes)

    async def stop(self) -> None:
        if self.room is not None:
            self.room.hub.close()
            self.room.data.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._lookup.close()
        if self._bound:  # never the socket of another daemon, which kept us from starting
            self.daemon.settings.socket.unlink(missing_ok=True)
            self._bound = False


def unix_socket(path: Path) -> socket.socket:
    """A listening socket of mode 0660.  One left behind by a daemon that is gone is replaced.

    Raises AddressInUse when someone answers there, or when something else stands there.
    """
    if len(os.fsencode(path)) > 107:  # sun_path of Linux holds 108 bytes with its end
        raise AddressInUse(f"the path of the socket is too long ({path}); set a shorter socket in [listen]")
    if path.exists() or path.is_symlink():
        _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o777 & ~SOCKET_MODE)
    try:
        made.bind(os.fspath(path))
    except OSError as error:
        made.close()
        raise AddressInUse(f"cannot make the socket {path}: {error.strerror}") from None
    finally:
        os.umask(old)
    made.setblocking(False)
    return made


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise AddressInUse(f"{path} is there and is no socket; remove it or set another socket in [listen]")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise AddressInUse(f"another tiltd answers at {path}; stop it first")
