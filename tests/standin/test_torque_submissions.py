"""What the plugin submits is what the cluster runs: floating, on several nodes; and why a job waits."""

# ruff: noqa: ASYNC240 - the files are tiny and nothing else runs in the loop

from __future__ import annotations

import ast
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.conformance_resource_managers import Site
from tiltd.daemon.core.model import Job, JobState
from tiltd.daemon.standin.torque.execution import copied_back
from tiltd.daemon.standin.torque.records import HOST, Pretend
from tiltd.daemon.standin.torque.site import StandIn
from tiltd.plugins.api import Permanent, ResourceManager
from tiltd.plugins.torque import TorqueManager


@pytest.fixture(scope="module")
def torque(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    nodes = [Pretend(name, cores=4, scratch_bytes=1 << 30) for name in ("core-012", "core-014")]
    with StandIn(tmp_path_factory.mktemp("torque"), nodes) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, torque: StandIn) -> Iterator[Site]:
    for job in torque.do("told")["jobs"]:
        torque.do("forget", job_id=job["job_id"])
    made = Site(tmp_path, TorqueManager)
    made.context = replace(made.context, owner=getpass.getuser())
    made.settings = {"path": str(torque.bin), "properties": ["tomography"]}
    yield made
    made.close()


async def _only(manager: ResourceManager) -> Job:
    [job] = (await manager.jobs()).jobs
    return job


async def test_a_floating_job_runs_where_the_scheduler_puts_it(site: Site) -> None:
    manager = site.restart()
    # The tentative node may be one that could never take it: only their number counts.
    spec = replace(await site.spec(manager, floating=True, cores=4), nodes=("core-099",))
    await manager.submit(spec)
    await site.ready(spec)
    job = await _only(manager)
    assert job.state is JobState.RUNNING and job.exec_host[0] in ("core-012", "core-014")


async def test_a_job_over_two_nodes_has_both(site: Site) -> None:
    manager = site.restart()
    spec = replace(await site.spec(manager, cores=3), nodes=("core-014", "core-012"))
    await manager.submit(spec)
    seen = ast.literal_eval(await site.ready(spec))
    lines = Path(seen[3]["PBS_NODEFILE"]).read_text().split()
    assert sorted(lines) == ["core-012"] * 3 + ["core-014"] * 3
    assert set((await _only(manager)).exec_host) == {"core-012", "core-014"}
    assert [node.cores_free for node in await manager.nodes()] == [1, 1]


async def test_the_job_sees_its_id_a_closed_umask_and_nothing_of_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    manager = site.restart()
    spec = await site.spec(manager)
    job_id = await manager.submit(spec)
    _, umask, _, environment = ast.literal_eval(await site.ready(spec))
    assert (environment["PBS_JOBID"], umask) == (job_id, 0o077)
    assert "SECRET_TOKEN" not in str(environment)


async def test_why_a_job_waits_in_mauis_words(site: Site) -> None:
    manager = site.restart()
    first, second = (
        await site.spec(manager, "a-1.1.1.a1", cores=4),
        await site.spec(manager, "b-1.1.1.a1", cores=4),
    )
    await manager.submit(first)
    await site.ready(first)
    job_id = await manager.submit(second)
    assert isinstance(manager, TorqueManager)
    words = await manager.reasons(job_id)
    assert any("idle procs do not meet requirements : 0 of 4 procs found" in word for word in words)


@pytest.mark.parametrize(
    "wish",
    [{"cores": 64}, {"properties": ("no-such-property",)}, {"queue": "no-such-queue"}],
)
async def test_what_the_cluster_can_never_do_is_refused_in_a_sentence(
    site: Site, wish: dict[str, Any]
) -> None:
    manager = site.restart()
    spec = await site.spec(manager, floating=True, **wish)
    with pytest.raises(Permanent, match=r"qsub of .* (no queue and nodes could|there is no such queue)"):
        await manager.submit(spec)
    assert (await manager.jobs()).jobs == ()


async def test_file_is_asked_for_where_the_site_wants_it(site: Site) -> None:
    """400 MiB over four cores; and the job starts, which it would not if it asked for more than there is."""
    site.settings["ask_file"] = True
    manager = site.restart()
    spec = replace(await site.spec(manager, cores=4, floating=True), scratch_bytes=400 << 20)
    job_id = await manager.submit(spec)
    await site.ready(spec)
    assert isinstance(manager, TorqueManager)
    shown = await manager.commands.run(["qstat", "-x", job_id], timeout_seconds=10)
    assert b"<file>102400kb</file>" in shown.out


def test_output_is_written_into_a_file_that_is_there_and_not_moved_over_it(tmp_path: Path) -> None:
    """Else a job with ``-o /dev/null`` would, run by root, leave a machine without its /dev/null."""
    spooled, target = tmp_path / "1.torque-head.OU", tmp_path / "told"
    spooled.write_text("what it said\n")
    target.write_text("old, and longer than what comes\n")
    target.chmod(0o666)
    before = target.stat()
    assert copied_back(spooled, f"{HOST}:{target}")
    after = target.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert target.read_text() == "what it said\n" and not spooled.exists()
