"""The resource manager of one machine: conformance, adoption by pid and start, cores, scratch, the tree."""

# ruff: noqa: ASYNC220, ASYNC240 - the files are tiny and nothing else runs in the loop
from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.conformance_resource_managers import ResourceManagerConformance, Site
from tiltd.daemon.core.model import JobState, Notice
from tiltd.plugins import processes
from tiltd.plugins.api import Permanent
from tiltd.plugins.local import LocalManager
from tiltd.plugins.log import LogNotifier
from tiltd.plugins.machine import LocalNode, node_info, used_bytes
from tiltd.plugins.processes import Process


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, LocalManager)
    yield made
    made.close()
    for spec in made.specs:
        for noted in ("launches", "child"):
            path = Path(spec.attempt_folder, noted)
            for pid in path.read_text().split() if path.exists() else ():
                if (seen := processes.look(int(pid))) and spec.attempt_folder in _command(int(pid)):
                    processes.send(seen[0], signal.SIGKILL)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


class TestConformance(ResourceManagerConformance):
    pass


def _record(site: Site, job_id: str) -> Path:
    return Path(site.context.spool_folder, "local", f"{job_id}.json")


async def test_exit_status_and_signal_are_told(site: Site) -> None:
    manager = LocalManager({}, site.context)
    good, bad = await site.spec(manager, "a.a1"), await site.spec(manager, "b.a1")
    site.finish(good, 75)
    first, second = await manager.submit(good), await manager.submit(bad)
    await site.ready(bad)
    os.kill(int(Path(bad.attempt_folder, "starts").read_text()), signal.SIGKILL)
    done, killed = await site.ended(manager, first), await site.ended(manager, second)
    assert done and killed
    assert (done.exit_status, done.comment) == (75, "")
    assert (killed.exit_status, killed.comment) == (256 + 9, "ended by signal 9")
    # The end is remembered over a restart.
    again = {job.job_id: job.exit_status for job in (await LocalManager({}, site.context).jobs()).jobs}
    assert again == {first: 75, second: 265}


async def test_surroundings_of_a_job(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PYTHONPATH": "/x",
        "IMOD_DIR": "/opt/imod",
        "SECRET": "s",
        "NOTIFY_SOCKET": "n",
    }.items():
        monkeypatch.setenv(name, value)
    manager = LocalManager({"nice": 7}, site.context)
    old = os.umask(0o077)
    try:
        spec = await site.spec(manager)
        job_id = await manager.submit(spec)
    finally:
        os.umask(old)
    cpus, umask, leader, environment = ast.literal_eval(await site.ready(spec))
    assert set(cpus) <= os.sched_getaffinity(0) and umask == 0o022 and leader
    assert environment["TILTD_JOB_ID"] == job_id and environment["IMOD_DIR"] == "/opt/imod"
    assert not {"PYTHONPATH", "SECRET", "NOTIFY_SOCKET"} & set(environment)
    pid = int(Path(spec.attempt_folder, "starts").read_text())
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(7, os.getpriority(os.PRIO_PROCESS, 0) + 7)


async def test_a_process_without_a_record_is_found_by_its_command_line(site: Site) -> None:
    first = LocalManager({}, site.context)
    spec = await site.spec(first)
    job_id = await first.submit(spec)
    await site.ready(spec)
    _record(site, job_id).unlink()  # the daemon died between the start and the record
    again = LocalManager({}, site.context)
    [job] = (await again.jobs()).jobs
    assert (job.job_id, job.job_name, job.state) == (job_id, spec.job_name, JobState.RUNNING)
    assert await again.submit(spec) == job_id
    assert (await again.nodes())[0].cores_free == (await again.nodes())[0].cores - 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"job_id": 7}'])
async def test_a_damaged_record_is_passed_over(site: Site, damage: str) -> None:
    first = LocalManager({}, site.context)
    spec = await site.spec(first)
    job_id = await first.submit(spec)
    await site.ready(spec)
    _record(site, job_id).write_text(damage)
    [job] = (await LocalManager({}, site.context).jobs()).jobs
    assert (job.job_id, job.state) == (job_id, JobState.RUNNING)


async def test_without_record_and_process_the_claim_still_stops_a_second_start(site: Site) -> None:
    first = LocalManager({}, site.context)
    spec = await site.spec(first)
    site.finish(spec)
    job_id = await first.submit(spec)
    await site.ended(first, job_id)
    _record(site, job_id).unlink()
    again = LocalManager({}, site.context)
    assert await again.submit(spec) == job_id
    assert (await again.jobs()).jobs == ()  # absent from a complete answer: it has ended
    assert len(Path(spec.attempt_folder, "launches").read_text().split()) == 1


async def test_a_revoked_attempt_is_not_started(site: Site) -> None:
    manager = LocalManager({}, site.context)
    spec = await site.spec(manager)
    folder = Path(spec.attempt_folder)
    (folder / "job.json").rename(folder / "revoked")
    with pytest.raises(Permanent, match="revoked"):
        await manager.submit(spec)
    assert not (folder / "launches").exists()


async def test_a_recycled_pid_is_neither_running_nor_killed(site: Site) -> None:
    first = LocalManager({}, site.context)
    spec = await site.spec(first)
    site.finish(spec)
    job_id = await first.submit(spec)
    await site.ended(first, job_id)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record = json.loads(_record(site, job_id).read_text())
        record |= {"ended_at": None, "exit_status": None}
        record["process"] |= {"pid": stranger.pid}
        _record(site, job_id).write_text(json.dumps(record))
        again = LocalManager({}, site.context)
        again.grace_seconds = 0.05
        await again.cancel(job_id)
        [job] = (await again.jobs()).jobs
        assert (job.state, job.exit_status) == (JobState.COMPLETED, None) and job.comment
        assert stranger.poll() is None
        assert not processes.send(Process(pid=stranger.pid, started="boot:1"), signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_wall_clock_that_jumps_ends_no_job(site: Site) -> None:
    first = LocalManager({}, site.context)
    spec = await site.spec(first)
    job_id = await first.submit(spec)
    await site.ready(spec)
    again = LocalManager({}, site.context)
    again.clock = lambda: time.time() + 10 * 86400
    assert [(job.job_id, job.state) for job in (await again.jobs()).jobs] == [(job_id, JobState.RUNNING)]


async def test_cancel_kills_the_whole_tree_of_a_stubborn_job(site: Site) -> None:
    manager = LocalManager({}, site.context)
    manager.grace_seconds = 0.2
    spec = await site.spec(manager)
    Path(spec.attempt_folder, "stubborn").touch()
    job_id = await manager.submit(spec)
    await site.ready(spec)
    child = processes.look(int(Path(spec.attempt_folder, "child").read_text()))
    assert child is not None
    begun = time.monotonic()
    await manager.cancel(job_id)
    assert time.monotonic() - begun < 0.15, "cancel waited for the end"
    await manager.cancel(job_id)  # twice is fine
    done = await site.ended(manager, job_id)
    assert done is not None and done.exit_status == 256 + 9

    async def gone() -> bool:
        return not processes.alive(child[0])

    await site.until(gone)


async def test_cancel_reaches_a_stopped_job(site: Site) -> None:
    manager = LocalManager({}, site.context)
    spec = await site.spec(manager)
    job_id = await manager.submit(spec)
    await site.ready(spec)
    os.kill(int(Path(spec.attempt_folder, "starts").read_text()), signal.SIGSTOP)

    async def suspended() -> bool:
        [job] = (await manager.jobs()).jobs
        return job.state == JobState.SUSPENDED

    await site.until(suspended)
    await manager.cancel(job_id)
    done = await site.ended(manager, job_id)
    assert done is not None and done.exit_status == 256 + 15


async def test_records_are_dropped_with_the_attempt_folder_or_by_age(site: Site, tmp_path: Path) -> None:
    now = 1_000_000.0
    manager = LocalManager({}, site.context)
    manager.clock = lambda: now
    specs = [await site.spec(manager, name) for name in ("a.a1", "b.a1")]
    for spec in specs:
        site.finish(spec)
        await site.ended(manager, await manager.submit(spec))
    Path(specs[0].attempt_folder).rename(tmp_path / "pruned")
    now += 61.0
    await manager.jobs()
    assert [job.job_id for job in (await manager.jobs()).jobs] == ["local-b.a1"]
    now += 90_000.0
    await manager.jobs()
    assert (await manager.jobs()).jobs == () and not any(_record(site, "x").parent.iterdir())


async def test_a_spool_that_takes_no_record_loses_no_job(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    manager = LocalManager({}, site.context)
    spec = await site.spec(manager)
    Path(site.context.spool_folder, "local").write_text("in the way")
    job_id = await manager.submit(spec)
    await site.ready(spec)
    assert [job.job_id for job in (await manager.jobs()).jobs] == [job_id]
    assert "spool_dir" in caplog.text
    _record(site, job_id).parent.unlink()
    assert [job.job_id for job in (await LocalManager({}, site.context).jobs()).jobs] == [job_id]


@pytest.mark.parametrize(
    "attempt_id", ["../x", "-rf", ".", "..", "a b", "a\nb", "", "$(id)", "a/b", "\udce9"]
)
async def test_only_ids_of_attempts_are_started(site: Site, attempt_id: str) -> None:
    manager = LocalManager({}, site.context)
    spec = await site.spec(manager)
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    with pytest.raises(Permanent):
        await manager.submit(type(spec)(**fields | {"attempt_id": attempt_id}))
    with pytest.raises(Permanent):
        await manager.submit(type(spec)(**fields | {"attempt_folder": f"/tmp/{attempt_id}"}))


# -- nodes -------------------------------------------------------------------------------------------------


def _nodes(site: Site, tmp_path: Path, **more: Any) -> dict[str, Any]:
    def table(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "cores": 2,
            "memory": 10**9,
            "scratch": str(tmp_path / f"scratch-{name}"),
        } | more

    return {"node": [table("one"), table("two")]}


def test_sizes_are_read_with_their_units(site: Site) -> None:
    table = {"name": "n", "memory": "2GB", "scratch_bytes": "1.5MiB"}
    node = LocalManager({"node": [table]}, site.context)._nodes["n"]
    assert (node.memory_bytes, node.scratch_bytes) == (2 * 10**9, 3 * 2**19)


async def test_several_nodes_count_their_own_cores(site: Site, tmp_path: Path) -> None:
    manager = LocalManager(_nodes(site, tmp_path), site.context)
    spec = await site.spec(manager, nodes=("two",), cores=2)
    await manager.submit(spec)
    one, two = await manager.nodes()
    assert (one.name, one.cores_free, one.state) == ("one", 2, "free")
    assert (two.name, two.cores_free, two.state) == ("two", 0, "busy")
    assert one.memory_bytes == 10**9 and one.scratch_path == str(tmp_path / "scratch-one")
    site.finish(spec)
    await site.ended(manager, "local-" + spec.attempt_id)
    assert (await manager.nodes())[1].cores_free == 2


def test_cores_are_parted_between_nodes_and_jobs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})
    tables = [{"name": name, "cores": cores} for name, cores in (("a", 3), ("b", 5), ("c", 10))]
    manager = LocalManager({"node": tables}, site.context)
    nodes = manager._nodes
    assert nodes["a"].cpus == (0, 1, 2) and nodes["b"].cpus == (3, 4, 5, 6, 7)
    assert nodes["c"].cpus == (0, 1, 2, 3, 4, 5, 6, 7, 0, 1)
    b = nodes["b"]
    assert b.pick(2, []) == (0, 1) and b.pick(2, [0, 1]) == (2, 3)
    assert b.pick(3, [0, 1, 2, 3]) == (0, 1, 4)  # over-subscribed: the free one and the least used
    assert b.pick(99, []) == (0, 1, 2, 3, 4)
    assert LocalManager({}, site.context)._nodes["localhost"].cores == 8


def test_scratch_is_bounded_by_its_cap(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    node = LocalNode(name="n", cpus=(0,), memory_bytes=1, scratch_path=str(scratch), scratch_bytes=10_000_000)
    empty = node_info(node, 0, 1, 5.0)
    assert (empty.scratch_total_bytes, empty.scratch_free_bytes) == (10_000_000, 10_000_000)
    (scratch / "TS.1.1.a1" / "input").mkdir(parents=True)
    (scratch / "TS.1.1.a1" / "input" / "stack.mrc").write_bytes(b"x" * 4_000_000)
    (scratch / "link").symlink_to("/usr")
    half = node_info(node, 0, 1, 5.0)
    assert 5_900_000 < half.scratch_free_bytes < 6_000_000
    assert used_bytes(str(scratch / "nowhere")) == 0
    whole = LocalNode(name="n", cpus=(0,), memory_bytes=1, scratch_path=str(scratch))
    assert (
        node_info(whole, 0, 2, 5.0).scratch_total_bytes
        == node_info(whole, 0, 1, 5.0).scratch_total_bytes // 2
    )


@pytest.mark.parametrize("place", ["file", "file/below", "missing/below"])
async def test_scratch_that_cannot_be_used_takes_the_node_offline(
    site: Site, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    manager = LocalManager({"node": [{"name": "n", "scratch": str(tmp_path / place)}]}, site.context)
    [node] = await manager.nodes()
    assert node.state == "offline" and str(tmp_path / place) in node.comment and node.scratch_free_bytes == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"nodes": []}, "nodes"),
        ({"nice": -5}, "nice"),
        ({"node": [{"cores": 2}]}, "name"),
        ({"node": [{"name": "a b"}]}, "name"),
        ({"node": [{"name": "a", "memory": "lots"}]}, "memory"),
        ({"node": [{"name": "a", "scratch_bytes": -1}]}, "scratch_bytes"),
        ({"node": [{"name": "a", "cores": 0}]}, "cores"),
        ({"node": [{"name": "a", "cores": True}]}, "cores"),
        ({"node": [{"name": "a", "scratch": "here"}]}, "absolute"),
        ({"node": [{"name": "a", "colour": 1}]}, "colour"),
        ({"node": [{"name": "a"}, {"name": "a"}]}, "unique"),
        ({"node": "a"}, "local.node"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(site: Site, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Permanent, match=says):
        LocalManager(settings, site.context)


async def test_log_notifier_writes_one_harmless_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    notice = Notice(notice_id="n1", event="breaker", summary="evil\nname \x1b[31m\udce9", dataset_id="d")
    await LogNotifier({}, site.context).notify(notice)
    out = capsys.readouterr().out
    assert "evil\\nname" in out and "\\xe9" in out and out.count("\n") == 1
