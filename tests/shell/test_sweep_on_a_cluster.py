"""What a dead node left is swept by a job of the resource manager, on the very node, and then given back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from core.scene import Bench, node
from tiltd.daemon import registry
from tiltd.daemon.config import Settings
from tiltd.daemon.core import effects as e
from tiltd.daemon.core.model import JobState
from tiltd.daemon.releasing import Releasing
from tiltd.daemon.spool import Spool
from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn
from tiltd.plugins.api import Context

NAMES = ("core-012", "core-014")


@pytest.fixture
def torque(tmp_path: Path) -> Iterator[StandIn]:
    nodes = [Pretend(name, cores=2, scratch_bytes=100_000_000) for name in NAMES]
    with StandIn(tmp_path / "torque", nodes) as torque:
        yield torque


def left_behind(scratch: Path, attempt_id: str) -> Path:
    """As a runner leaves it that died with its node: nobody could clean."""
    folder = scratch / attempt_id
    (folder / "tmp").mkdir(parents=True)
    (folder / "ballast").write_bytes(b"\0" * 100_000)
    lease = {"attempt_id": attempt_id, "run": "1.1", "expires_at": time.time() + 86400, "stranded": False}
    (folder / "lease.json").write_text(json.dumps(lease))
    return folder


async def test_a_sweep_job_cleans_the_node_that_died(tmp_path: Path, torque: StandIn) -> None:
    scratches = {name: Path(torque.scratch.replace("{node}", name)) for name in NAMES}
    bench = Bench(*(replace(node(name), scratch_path=str(scratches[name])) for name in NAMES))
    attempt = bench.submitted()
    [home] = bench.of(attempt).attempts[-1].placement.nodes
    table: dict[str, Any] = {"path": str(torque.bin), "scratch": torque.scratch, "python": sys.executable}
    settings = Settings(state_dir=tmp_path, resource_manager="torque", tables={"torque": table})
    spool = Spool(settings.spool_dir)
    context = Context(
        state_folder=str(tmp_path), spool_folder=str(settings.spool_dir), journal_id="j", owner="root"
    )
    manager = registry.make("resource_manager", "torque", table, context)
    folder = Path(spool.prepare(attempt, {"format": 1, "nonce": "x"}))
    (folder / "job.json").rename(folder / "claimed.job")
    (folder / "progress").write_text(json.dumps({"phase": "claimed", "job_id": "job", "node": home}) + "\n")
    bench.jobs(JobState.RUNNING, exec_host=(home,))
    bench.jobs(JobState.COMPLETED, exit_status=271)
    bench.wait(200.0)
    gone, kept = left_behind(scratches[home], attempt), left_behind(scratches[home], "other.1.1.a1")
    releasing = Releasing(bench.core, settings, manager, spool, BenchClock(bench))  # type: ignore[arg-type]
    effect = e.ReleaseScratch(attempt_id=attempt, dataset_id=bench.of(attempt).dataset_id, node=home)
    assert await releasing.release(effect) == ""
    assert not gone.exists()
    assert kept.exists()
    assert spool.attempts() == [attempt], "the sweep's own folder is gone"


class BenchClock:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def now(self) -> float:
        return self._bench.now
