"""The real runner's own steps in virtual time: what a node does with a job, without a process.

What is real: claim, lease, ballast, stage-in, results, stage-out, seal, markers, cleaning.  What is not: the
step (its result is written at the end of its time) and processes (a killed run stops being called; then its
janitor's part is called, unless the node died).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from standin.cluster_scene import Timers
from tiltd.daemon import runner
from tiltd.daemon.standin.torque.batch import Batch
from tiltd.daemon.standin.torque.execution import used_bytes
from tiltd.daemon.standin.torque.records import BatchJob, Node

_STATVFS = os.statvfs
_PIDS = itertools.count(5_000_000)
"""Beyond the kernel's: nobody has them, so a run that stops is proved dead."""


class Given(Exception):
    """A run ended, with this exit status."""


class Run:
    """One start of one job.  ``alive`` until it ended or was killed."""

    def __init__(self, job: BatchJob, node: Node, folder: Path) -> None:
        self.job, self.node, self.folder = job, node, folder
        self.start_count = job.start_count
        self.pid = next(_PIDS)
        self.alive = True
        self.claimed = False
        self.work: Any = None


class World:
    """The nodes.  ``duplicates``, ``overfull``, ``succeeded`` (when) and ``spans`` (from, to, by attempt) are
    what a witness knows."""

    def __init__(self, time: Timers, chance: random.Random) -> None:
        self.time, self.chance = time, chance
        self.batch: Batch | None = None
        self.runs: list[Run] = []
        self.duplicates: list[str] = []
        self.overfull: list[str] = []
        self.succeeded: dict[str, float] = {}
        self.spans: dict[str, list[list[float]]] = {}
        self.marker_delay_seconds = 0.0
        runner.time = SimpleNamespace(  # type: ignore[assignment]
            time=time.now, monotonic=time.now, sleep=lambda seconds: None,
            strftime=lambda form: "", struct_time=None,
        )  # fmt: skip
        runner.end_processes = lambda mark, sessions, grace: True
        os.statvfs = self._file_system  # type: ignore[assignment]

    def _file_system(self, path: Any) -> Any:
        """A node's scratch is as large as it is said to be."""
        nodes = self.batch.nodes.values() if self.batch is not None else ()
        node = next((node for node in nodes if str(path).startswith(node.scratch)), None)
        if node is None:
            return _STATVFS(path)
        return SimpleNamespace(f_frsize=1, f_bavail=max(0, self.free_bytes(node)), f_favail=1)

    # -- what the server asks --------------------------------------------------------------------------------

    def start(self, job: BatchJob, nodes: Sequence[Node]) -> int:
        words = shlex.split(job.script.strip().splitlines()[-1])  # exec PYTHON RUNNER FOLDER ...
        run = Run(job, nodes[0], Path(words[3]))
        self.runs.append(run)
        self.time.later(self.chance.uniform(0.05, 0.5), lambda: self._begin(run))
        return run.pid

    def signal(self, job: BatchJob, number: int) -> None:
        for run in self._of(job):
            self._kill(run, 256 + number, janitor=True)

    def kill_node(self, node: Node) -> None:
        for run in [run for run in self.runs if run.node is node and run.alive]:
            run.alive = False
            self.runs.remove(run)
            self._over(run)

    def deliver(self, job: BatchJob) -> bool:
        return True

    def free_bytes(self, node: Node) -> int:
        return node.pretend.scratch_bytes - used_bytes(node.scratch)

    def _of(self, job: BatchJob) -> list[Run]:
        return [run for run in self.runs if run.job is job and run.alive]

    def _finished(self, run: Run, status: int) -> None:
        assert self.batch is not None
        run.alive = False
        self._over(run)
        self.runs.remove(run)
        self.batch.finished(run.job, status, run.start_count)

    def _kill(self, run: Run, status: int, janitor: bool) -> None:
        self._finished(run, status)
        if janitor and run.work is not None:
            self.time.later(0.05, lambda: self._swept(run))

    def _swept(self, run: Run) -> None:
        with self._on(run):
            runner.sweep(run.work, {}, ended=False)
            run.work.tell_cleaned()

    # -- what a run does -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _on(self, run: Run) -> Any:
        """On its node: the runner asks the environment for its name."""
        before = os.environ.get("TILTD_NODE")
        os.environ["TILTD_NODE"] = run.node.name
        try:
            yield
        finally:
            os.environ.pop("TILTD_NODE")
            if before is not None:
                os.environ["TILTD_NODE"] = before

    def _begin(self, run: Run) -> None:
        if not run.alive:
            return
        with self._on(run):
            if not run.folder.is_dir() or not runner.claim(str(run.folder), run.job.job_id):
                self._finished(run, 0)
                return
            document = runner.read_json(str(run.folder / f"claimed.{run.job.job_id}"), 1 << 26)
            run.work = work = runner.Run(str(run.folder), run.job.job_id, document)
            work.token = f"{run.pid}.1"
            run.claimed = True
            work.tell("claimed", job_id=run.job.job_id, pid=run.pid, pid_started=1)
            self._witness(run, document)
            if document["kind"] != "run":
                self._end(run, work.outcome())
                return
            try:
                work.make_scratch()
                work.stage_in()
                work.check_fence()
            except runner.Ended as end:
                self._end(run, end.record)
                return
            work.tell("step", step="reconstruct")
            self._fits(run.node)
        self.time.later(self.chance.uniform(3.0, 20.0), lambda: self._deliver(run))

    def _witness(self, run: Run, document: Any) -> None:
        """Two runs of one dataset, both alive and neither fenced, must never be."""
        run.work.dataset = document["dataset_id"]
        self.spans.setdefault(document["attempt_id"], []).append([self.time.now(), float("inf")])
        if document["kind"] != "run":
            return
        for other in self.runs:
            alive = other is not run and other.alive and other.work is not None
            same = alive and other.work.dataset == document["dataset_id"]
            if same and not (other.folder / "fence").exists():
                self.duplicates.append(f"{run.folder.name} beside {other.folder.name}")

    def _over(self, run: Run) -> None:
        if run.claimed:
            self.spans[run.folder.name][-1][1] = self.time.now()

    def _fits(self, node: Node) -> None:
        used = used_bytes(node.scratch)
        node.most_used_bytes = max(node.most_used_bytes, used)
        if used > node.pretend.scratch_bytes:
            self.overfull.append(f"{node.name}: {used} of {node.pretend.scratch_bytes} bytes")

    def _deliver(self, run: Run) -> None:
        if not run.alive:
            return
        with self._on(run):
            work = run.work
            try:
                work.check_fence()
                if run.folder.name.startswith("fails_once") and run.folder.name.endswith(".a1"):
                    raise runner.Ended("failed", "exit 3", "step command ended with exit 3", exit_status=3)
                Path(work.path("output", "volume.bin")).write_bytes(b"volume of " + run.pid.to_bytes(8))
                work.check_results()
                work.ballast.drop()
                work.stage_out(work.path("output"), work.path("logs"))
            except runner.Ended as end:
                self._end(run, end.record)
                return
            self._end(run, {"outcome": "success", "reason": "", "detail": "", "exit_status": 0})

    def _end(self, run: Run, record: Any) -> None:
        """The marker, then the cleaning; on NFS the marker may be seen long after the job is over."""
        work = run.work
        if record["outcome"] == "success" and work.job["kind"] == "run":
            self.succeeded[run.folder.name] = self.time.now()
        status = {"success": 0, "scratch_short": 75}.get(record["outcome"], 1)

        def told() -> None:
            with self._on(run), contextlib.suppress(OSError):
                work.write_end(record)
                work.clean(record["outcome"])

        if self.marker_delay_seconds:
            self.time.later(self.marker_delay_seconds, told)
        else:
            told()
        self._finished(run, status)
