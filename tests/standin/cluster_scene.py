"""The stand-in's server without a process: a clock that is moved by hand, and jobs that end when told to."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltd.daemon.standin.torque.batch import Batch, Pace
from tiltd.daemon.standin.torque.commands import Commands
from tiltd.daemon.standin.torque.records import Answer, BatchJob, Call, Node, Pretend, Queue

QUEUES = (
    Queue("batch"),
    Queue("small", max_queuable=2),
    Queue("stopped", started=False),
    Queue("disabled", enabled=False),
    Queue("limited", max_user_queuable=2, max_walltime_seconds=7200, max_memory_bytes=16 << 30),
)
"""The queues of the recorded server."""

NODES = (Pretend("core-012"), Pretend("core-014"), Pretend("core-015", cores=4))


class Timers:
    """``now``, ``later``, and ``advance``, which calls what is due in order."""

    def __init__(self, at: float = 1795359576.0) -> None:
        self.at = at
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()

    def now(self) -> float:
        return self.at

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.at + seconds, next(self._number), call))

    def advance(self, seconds: float) -> None:
        end = self.at + seconds
        while self._due and self._due[0][0] <= end:
            self.at, _, call = heapq.heappop(self._due)
            call()
        self.at = end


class Idle:
    """Jobs that do nothing: they end by :meth:`Scene.end`, or 20 ms after a signal."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.started: list[str] = []
        self.used: dict[str, int] = {}
        self.undeliverable = False

    def start(self, job: BatchJob, nodes: Sequence[Node]) -> int:
        self.started.append(job.job_id)
        return 20000 + job.number

    def signal(self, job: BatchJob, number: int) -> None:
        start = job.start_count
        self.scene.time.later(0.02, lambda: self.scene.batch.finished(job, 256 + number, start))

    def kill_node(self, node: Node) -> None: ...

    def deliver(self, job: BatchJob) -> bool:
        return not self.undeliverable

    def free_bytes(self, node: Node) -> int:
        return node.pretend.scratch_bytes - self.used.get(node.name, 0)


class Scene:
    """A cluster like the recorded one, and a user who types commands in ``folder``."""

    def __init__(self, folder: Path, nodes: Sequence[Pretend] = NODES, pace: Pace | None = None) -> None:
        self.time = Timers()
        self.folder = folder
        self.idle = Idle(self)
        homes = [Node(each, f"/scratch/{each.name}", f"/nodes/{each.name}") for each in nodes]
        self.batch = Batch(homes, self.idle, self.time.now, self.time.later, pace, QUEUES)
        self.commands = Commands(self.batch, self.time.later)
        self.environment = {
            "HOME": "/home/tomography", "LOGNAME": "tomography", "USER": "tomography", "SHELL": "/bin/bash",
            "PATH": "/opt/torque/bin:/opt/maui/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
            "MAIL": "/var/mail/tomography",
        }  # fmt: skip

    def type(self, name: str, *argv: str, stdin: bytes = b"", folder: str = "") -> Answer:
        return self.commands.run(Call(name, argv, folder or str(self.folder), self.environment, stdin))

    def submit(self, *argv: str) -> BatchJob:
        """Raises AssertionError when it is refused."""
        answer = self.type("qsub", *argv, stdin=b"#!/bin/sh\nsleep 20\n")
        assert answer.rc == 0, answer.err
        return self.batch.jobs[int(answer.out.partition(b".")[0])]

    def running(self, *argv: str) -> BatchJob:
        job = self.submit(*argv)
        self.time.advance(1.0)
        assert job.state == "R"
        return job

    def end(self, job: BatchJob, status: int) -> None:
        self.batch.finished(job, status, job.start_count)
        self.time.advance(0.2)
