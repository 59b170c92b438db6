"""A whole cluster in a folder: its server as a process, its nodes, and its commands in ``bin``.

with StandIn(folder, [Pretend("core-012", scratch_bytes=1 << 30)]) as torque:
    subprocess.run([torque.bin / "qsub", ...])
    torque.do("node_lost", node="core-012", dies=True)
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import client
from .batch import Pace
from .records import Pretend, Queue

COMMANDS = ("qsub", "qstat", "qdel", "qhold", "qrls", "qrerun", "pbsnodes", "checkjob", "showq", "showstart")
START_SECONDS = 20.0
SOCKET_FOLDER_MAX = 90
"""A unix socket's path may have 107 bytes (unix(7))."""
QUICK = Pace(
    cycle_seconds=0.05, status_seconds=0.5, down_after_seconds=2.0, keep_completed_seconds=300.0,
    defer_seconds=5.0, exiting_seconds=0.02,
)  # fmt: skip
"""A cluster in a hurry: tenths of seconds where a real one takes many."""


class StandInFailed(Exception):
    """The server did not start, or does not understand; the message is a sentence."""


class StandIn:
    """``scratch`` is the path of a node's scratch, with ``{node}`` for the node's name."""

    def __init__(
        self, folder: Path, nodes: Sequence[Pretend], pace: Pace = QUICK,
        queues: Sequence[Queue] = (Queue("batch"),),
    ) -> None:  # fmt: skip
        self.folder = folder.absolute()
        self.bin = self.folder / "bin"
        self.scratch = str(self.folder / "nodes" / "{node}" / "scratch")
        self.log = self.folder / "server.log"
        self.nodes = {node.name: node for node in nodes}
        sockets = self.folder
        if len(os.fsencode(sockets)) > SOCKET_FOLDER_MAX:
            sockets = Path(tempfile.mkdtemp(prefix="torque-"))
        self._socket = str(sockets / "server")
        self._process: subprocess.Popen[bytes] | None = None
        self.bin.mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            self._write_command(name)
        settings = {
            "socket": self._socket,
            "nodes": [dataclasses.asdict(node) for node in nodes],
            "pace": dataclasses.asdict(pace),
            "queues": [dataclasses.asdict(queue) for queue in queues],
        }
        (self.folder / "cluster.json").write_text(json.dumps(settings, indent=1))

    def _write_command(self, name: str) -> None:
        words = [sys.executable, "-I", "-S", client.__file__, name, self._socket]
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)

    @property
    def server_argv(self) -> list[str]:
        """The command that runs the server."""
        return [sys.executable, "-m", "tiltd.daemon.standin.torque.server", str(self.folder)]

    def start(self) -> None:
        """Raises StandInFailed when it does not listen in time."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.server_argv,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not Path(self._socket).exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StandInFailed(f"the stand-in Torque did not start; see {self.log}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Of the server.  Raises StandInFailed when it was not started."""
        if self._process is None:
            raise StandInFailed("the stand-in Torque was not started")
        return self._process.pid

    def stop(self) -> None:
        """End the server; what its nodes still run goes on, as with the real one."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if not self._socket.startswith(str(self.folder)):
            shutil.rmtree(Path(self._socket).parent, ignore_errors=True)

    def do(self, operation: str, **fields: Any) -> Any:
        """An operation of :class:`.control.Control`.  Raises StandInFailed with what the server says."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._socket)
            connection.sendall(json.dumps({"operation": operation, **fields}).encode() + b"\n")
            with connection.makefile("rb") as file:
                answer = json.loads(file.readline())
        if "error" in answer:
            raise StandInFailed(f"{operation}: {answer['error']}")
        return answer["answer"]

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
