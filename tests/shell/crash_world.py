"""Virtual time, a batch server in a folder, and where a daemon can die; see ``crash_scene``."""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from shell.daemon_process import Site
from tiltd.daemon import collect, durable, handover
from tiltd.daemon.app import App
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Job, JobSpec, JobState, NodeInfo
from tiltd.daemon.hands import Hands
from tiltd.plugins.api import JobsSeen

DEAD = 137


# -- time and threads --------------------------------------------------------------------------------------


class Jumping(selectors.DefaultSelector):
    """Nothing to read and the next timer in a while: then it is that time now."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits and nothing will ever happen"
        self.ahead_seconds += max(timeout, 0.0)
        return super().select(0)


class Unthreaded(asyncio.SelectorEventLoop):
    """Its time is virtual; what is meant for a worker thread is called at once."""

    def __init__(self) -> None:
        self.jumping = Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.ahead_seconds

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done


class VirtualClock:
    def __init__(self, loop: Unthreaded, born_at: float) -> None:
        self._loop, self._born_at = loop, born_at

    def now(self) -> float:
        return self._born_at + self._loop.time()


# -- the batch server --------------------------------------------------------------------------------------


STATES = {
    ".queued": JobState.QUEUED,
    ".claimed": JobState.RUNNING,
    ".done": JobState.RUNNING,
    ".ended": JobState.COMPLETED,
}


class Queueing(Protocol):
    """What a scenario wants of the server: see ``crash_scene.Scenario``."""

    never: str
    claims: bool


class Server:
    """A folder with a file a job.  It promises what a batch system does: a job that was accepted runs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = site.folder / "server"
        self.folder.mkdir(exist_ok=True)

    def tick(self, scenario: Queueing) -> None:
        """Run what waits, each job once; what ran before is told as ended only now."""
        for path in sorted(self.folder.glob("*.done")):
            path.rename(path.with_suffix(".ended"))
        for path in sorted(self.folder.glob("*.queued")):
            job, folder = path.with_suffix(""), path.read_text()
            if scenario.never and scenario.never in path.name:
                if scenario.claims:
                    Path(folder, "job.json").rename(Path(folder, f"claimed.{job.name}"))
                    path.rename(f"{job}.claimed")
                continue
            path.rename(f"{job}.running")
            runner = next((self.site.spool / "runners").glob("runner-*.py"))
            status = subprocess.run(
                [sys.executable, "-I", "-S", str(runner), folder],
                env={"PATH": os.environ["PATH"], "TILTD_JOB_ID": job.name},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, check=False,
            ).returncode  # fmt: skip
            Path(f"{job}.running").write_text(str(status))
            Path(f"{job}.running").rename(f"{job}.done")


class Manager:
    """The resource manager's plugin; ``submit`` of an attempt that the server knows adopts its job."""

    def __init__(self, server: Server, clock: VirtualClock) -> None:
        self.server, self.clock = server, clock

    async def submit(self, spec: JobSpec) -> str:
        job_id = f"7.{spec.attempt_id}"
        known = [path for path in self.server.folder.iterdir() if path.stem == job_id]
        if not known:
            written = self.server.folder / f".{job_id}"
            written.write_text(spec.attempt_folder)
            written.rename(self.server.folder / f"{job_id}.queued")
        return job_id

    async def jobs(self) -> JobsSeen:
        jobs = []
        for path in self.server.folder.glob("7.*"):
            state = STATES[path.suffix]
            status = int(path.read_text()) if path.suffix == ".ended" else None
            jobs.append(
                Job(job_id=path.stem, job_name=path.stem[2:], owner="o", state=state, exit_status=status)
            )
        return JobsSeen(jobs=tuple(jobs), complete=True, asked_at=self.clock.now())

    async def nodes(self) -> Sequence[NodeInfo]:
        free = NodeInfo(
            name="here", state="free", cores=4, cores_free=4, memory_bytes=10**10, scratch_total_bytes=10**9,
            scratch_free_bytes=10**9, observed_at=self.clock.now(),
            scratch_path=str(self.server.site.scratch),
        )  # fmt: skip
        return (free,)

    async def cancel(self, job_id: str) -> None:
        for state in ("queued", "claimed"):
            found = self.server.folder / f"{job_id}.{state}"
            if found.exists():
                found.write_text("271")
                found.rename(self.server.folder / f"{job_id}.ended")


# -- points ------------------------------------------------------------------------------------------------


class Points:
    """Counts the boundaries of a life, and ends it at one of them."""

    def __init__(self, site: Site, die_at: int) -> None:
        self.site, self.die_at = site, die_at
        self.names: list[str] = []
        self.clock: VirtualClock | None = None
        self._watched = tuple(
            str(path)
            for path in (
                site.spool,
                site.results,
                site.scratch,
                site.folder / "server",
                site.folder / "import",
            )
        )

    def reached(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self.die_at:
            assert self.clock is not None
            (self.site.folder / "died_at").write_text(repr(self.clock.now()))
            os._exit(DEAD)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Every change to a file system that Python makes, told before it is made."""
        if event in CHANGES or (event == "open" and is_writing(args)):
            path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
            if path.startswith(self._watched):
                self.reached(f"{event} {Path(path).name}")


CHANGES = {
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "os.link",
    "os.truncate",
}


def is_writing(args: tuple[Any, ...]) -> bool:
    flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def at_once(hands: Hands, loop: asyncio.AbstractEventLoop) -> None:
    """In place of ``Hands._hand_over``: in the loop's own thread."""
    pieces, hands._asked = hands._asked, []
    for piece in pieces:
        if piece.take():
            piece.do()
            piece.tell()


def instrument(app: App, points: Points) -> None:
    """Boundaries of which the interpreter does not tell: appends, effects, answers, a new file that is still
    empty, and the rename that publishes."""
    Hands._hand_over = at_once  # type: ignore[method-assign]
    append_now, start, put = app.journal.append_now, app.perform.start, app.loop.put
    rename, write_all = collect.rename_exclusively, durable.write_all

    def appended(steps: Any) -> None:
        points.reached("append")
        append_now(steps)
        points.reached("appended")

    def started(effect: e.Effect) -> None:
        points.reached(f"effect {type(effect).__name__}")
        start(effect)

    async def answered(observation: o.Observation) -> None:
        if isinstance(observation, o.Answer):
            points.reached(f"answer {type(observation).__name__}")
        await put(observation)

    def published(source: str, target: str) -> None:
        points.reached("publish")
        rename(source, target)
        points.reached("published")

    def writing(fd: int, content: bytes) -> None:
        points.reached("write")
        write_all(fd, content)

    def commits(sql: str) -> None:
        if sql.startswith("COMMIT"):
            points.reached("commit")

    app.journal.append_now = appended  # type: ignore[method-assign]
    app.perform.start = started  # type: ignore[method-assign]
    app.perform._put = answered
    collect.rename_exclusively = published
    durable.write_all = handover.write_all = writing
    app.journal._connection.set_trace_callback(commits)
