"""What every resource manager must do, as tests to inherit.

    class TestMine(ResourceManagerConformance):
        @pytest.fixture
        def site(self, tmp_path): return MySite(tmp_path)      # a Site below

``Site`` makes managers over one spool folder and one set of nodes; ``restart`` makes a second one, as a
daemon that starts again does.  Jobs run ``FAKE_RUNNER``, which claims its attempt as the real runner does,
notes every start that won the claim in ``starts``, and stays until the file ``go`` exists or TERM comes.
"""

# ruff: noqa: ASYNC240 - the files are tiny and nothing else runs in the loop
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon.core.model import Job, JobSpec, JobState
from tiltd.plugins.api import Context, JobsSeen, PluginError, ResourceManager

FAKE_RUNNER = """\
import os, signal, subprocess, sys, time
attempt = sys.argv[1]
job_id = os.environ.get("TILTD_JOB_ID") or os.environ.get("PBS_JOBID") or os.environ.get("SLURM_JOB_ID")
open(os.path.join(attempt, "launches"), "a").write(f"{os.getpid()}\\n")
try:
    os.rename(os.path.join(attempt, "job.json"), os.path.join(attempt, "claimed." + job_id))
except OSError:
    sys.exit(0)
with open(os.path.join(attempt, "starts"), "a") as out:
    out.write(f"{os.getpid()}\\n")
if os.path.exists(os.path.join(attempt, "stubborn")):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    step = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", step], start_new_session=True)
    open(os.path.join(attempt, "child"), "w").write(str(child.pid))
with open(os.path.join(attempt, "ready"), "w") as out:
    leader = os.getsid(0) == os.getpid()
    out.write(repr((sorted(os.sched_getaffinity(0)), os.umask(0), leader, dict(os.environ))))
while not os.path.exists(os.path.join(attempt, "go")):
    time.sleep(0.01)
sys.exit(int(open(os.path.join(attempt, "go")).read() or 0))
"""


class Site:
    """One spool, one set of nodes; ``make`` is the factory under test."""

    patience_seconds = 10.0

    def __init__(self, folder: Path, make: Callable[[dict[str, Any], Context], ResourceManager]) -> None:
        self.context = Context(
            state_folder=str(folder), spool_folder=str(folder / "spool"), journal_id="j1", owner="tiltd"
        )
        self.settings: dict[str, Any] = {}
        self.make = make
        self.attempts = folder / "spool" / "attempts"
        self.attempts.mkdir(parents=True)
        self.runner = folder / "runner-fake.py"
        self.runner.write_text(FAKE_RUNNER)
        self.specs: list[JobSpec] = []

    def restart(self) -> ResourceManager:
        return self.make(self.settings, self.context)

    async def spec(
        self, manager: ResourceManager, name: str = "TS_01-3fa2c1d0.1.1.a1", **more: Any
    ) -> JobSpec:
        folder = self.attempts / name
        folder.mkdir()
        (folder / "job.json").write_text("{}")
        nodes = (await manager.nodes())[0].name
        fields: dict[str, Any] = {"nodes": (nodes,), "cores": 1, "threads": 1} | more
        made = JobSpec(
            attempt_id=name,
            job_name="tiltd-" + name,
            runner_path=str(self.runner),
            attempt_folder=str(folder),
            memory_bytes=10**8,
            scratch_bytes=10**6,
            walltime_seconds=60.0,
            **fields,
        )
        self.specs.append(made)
        return made

    async def until(self, what: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again until the answer is true; fails after ``patience_seconds``."""
        end = time.monotonic() + self.patience_seconds
        while not (answer := await what()):
            assert time.monotonic() < end, "waited too long"
            await asyncio.sleep(0.01)
        return answer

    async def ready(self, spec: JobSpec) -> str:
        """Wait until the runner has claimed its attempt; what it noted of its surroundings."""

        async def look() -> str:
            path = Path(spec.attempt_folder, "ready")
            return path.read_text() if path.exists() else ""

        return str(await self.until(look))

    def finish(self, spec: JobSpec, status: int = 0) -> None:
        part = Path(spec.attempt_folder, "go.new")
        part.write_text(str(status))
        part.rename(part.with_name("go"))

    async def ended(self, manager: ResourceManager, job_id: str) -> Job | None:
        """Wait for the job's end; ``None`` when it is no longer listed."""

        async def look() -> JobsSeen | None:
            seen = await manager.jobs()
            assert seen.complete
            jobs = [job for job in seen.jobs if job.job_id == job_id]
            return seen if all(job.state == JobState.COMPLETED for job in jobs) else None

        seen = await self.until(look)
        return next((job for job in seen.jobs if job.job_id == job_id), None)

    def starts(self, spec: JobSpec) -> int:
        """How often the attempt's work was begun."""
        path = Path(spec.attempt_folder, "starts")
        return len(path.read_text().split()) if path.exists() else 0

    def close(self) -> None:
        for spec in self.specs:
            if Path(spec.attempt_folder).exists():
                self.finish(spec)


class ResourceManagerConformance:
    """Inherit, and give a fixture ``site``."""

    async def test_nodes_have_sensible_figures(self, site: Site) -> None:
        nodes = await site.restart().nodes()
        assert nodes and len({node.name for node in nodes}) == len(nodes)
        for node in nodes:
            assert node.state in ("free", "busy", "offline", "down", "unknown")
            assert 0 <= node.cores_free <= node.cores and node.memory_bytes > 0
            assert 0 <= node.scratch_free_bytes <= node.scratch_total_bytes
            assert node.observed_at > 0
        assert any(node.state == "free" for node in nodes)

    async def test_nothing_was_submitted(self, site: Site) -> None:
        seen = await site.restart().jobs()
        assert seen.complete and seen.jobs == ()

    async def test_a_job_runs_and_completes(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        job_id = await manager.submit(spec)
        await site.ready(spec)
        seen = await manager.jobs()
        [job] = seen.jobs
        assert seen.complete and (job.job_id, job.job_name) == (job_id, spec.job_name)
        assert job.owner == site.context.owner and job.state == JobState.RUNNING
        assert job.exec_host == spec.nodes and job.started_at is not None
        site.finish(spec, 3)
        done = await site.ended(manager, job_id)
        assert done is None or done.exit_status in (3, None)
        assert site.starts(spec) == 1

    async def test_submitting_twice_adopts(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        first, second = await asyncio.gather(manager.submit(spec), manager.submit(spec))
        assert first == second == await manager.submit(spec)
        await site.ready(spec)
        assert len((await manager.jobs()).jobs) == 1 and site.starts(spec) == 1

    async def test_submitting_again_after_the_end_starts_nothing(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        site.finish(spec)
        job_id = await manager.submit(spec)
        await site.ended(manager, job_id)
        assert await manager.submit(spec) == job_id
        await site.ended(manager, job_id)
        assert site.starts(spec) == 1

    async def test_a_restart_finds_the_running_job(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        job_id = await manager.submit(spec)
        await site.ready(spec)
        again = site.restart()
        assert [job.job_id for job in (await again.jobs()).jobs if job.state == JobState.RUNNING] == [job_id]
        assert await again.submit(spec) == job_id
        site.finish(spec)
        await site.ended(again, job_id)
        assert site.starts(spec) == 1

    async def test_a_job_that_ended_while_nobody_looked_is_not_running(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        job_id = await manager.submit(spec)
        await site.ready(spec)
        site.finish(spec)
        await site.ended(site.restart(), job_id)

    async def test_cancel_ends_the_job(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        job_id = await manager.submit(spec)
        await site.ready(spec)
        await manager.cancel(job_id)
        done = await site.ended(manager, job_id)
        assert done is None or done.exit_status != 0

    async def test_cancel_of_what_is_gone_succeeds(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager)
        site.finish(spec)
        job_id = await manager.submit(spec)
        await site.ended(manager, job_id)
        await manager.cancel(job_id)
        await manager.cancel(job_id)

    async def test_an_unknown_node_is_refused_with_a_sentence(self, site: Site) -> None:
        manager = site.restart()
        spec = await site.spec(manager, nodes=("no-such-node",))
        with pytest.raises(PluginError, match="no-such-node"):
            await manager.submit(spec)
        assert site.starts(spec) == 0
