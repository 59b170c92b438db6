"""The demo on the stand-in Torque: its site, what it watches, and, slowly, all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tiltd.daemon.config import Settings
from tiltd.daemon.demo import torque
from tiltd.daemon.demo.follow import Seen
from tiltd.plugins.torque_settings import read


def test_its_site_is_one_that_tiltd_takes(tmp_path: Path) -> None:
    cluster = torque.Cluster(tmp_path, 41, 90_000_000)
    settings = Settings.load(cluster.site.config)
    table = read(settings.table("torque"))
    assert settings.resource_manager == "torque"
    assert table.of_node("core-014").scratch == str(cluster.site.scratch("core-014"))
    assert {table.of_node(name).mode for name in cluster.site.nodes} == {"pinned"}
    assert cluster.torque.nodes["core-015"].scratch_bytes == 30_000_000


def test_a_folder_that_qsub_does_not_pass_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="qsub does not pass on"):
        torque.Cluster(tmp_path / "with a blank", 41, 90_000_000)


def test_what_is_booked_beyond_a_scratch_is_seen(tmp_path: Path) -> None:
    cluster = torque.Cluster(tmp_path, 41, 90_000_000)
    node = {"name": "core-012", "scratch_total_bytes": 100, "scratch_reserved_bytes": 100}
    waits = {"TS_02": Seen(state="ready", reason="waits: scratch")}
    cluster.watch({"nodes": [node]}, waits)
    assert cluster.over_committed == [] and cluster.waited == {"TS_02": "waits: scratch"}
    cluster.watch({"nodes": [node | {"scratch_reserved_bytes": 101}]}, {})
    assert cluster.over_committed == ["core-012: 101 bytes booked"]


def test_jobs_that_held_scratch_at_the_same_time_are_counted(tmp_path: Path) -> None:
    def told(name: str, **at: float) -> None:
        (tmp_path / name).mkdir()
        lines = [json.dumps({"phase": phase, "at": each, "node": "core-012"}) for phase, each in at.items()]
        (tmp_path / name / "progress").write_text("\n".join(lines) + "\n")

    told("never_ran")
    assert torque.most_at_once(torque.held(tmp_path)) == 0
    told("first", claimed=1.0, scratch=1.5, cleaned=4.0)
    told("after_it", claimed=4.0, cleaned=5.0)
    assert torque.most_at_once(torque.held(tmp_path)) == 1
    told("beside_both", claimed=2.0, cleaned=4.5)
    assert torque.most_at_once(torque.held(tmp_path)) == 2
    told("not_clean", claimed=0.5)
    assert torque.most_at_once(torque.held(tmp_path)) == 3


@pytest.mark.slow
def test_the_whole_demo_comes_out_as_expected(tmp_path: Path) -> None:
    size = ("--size", "96", "--tilts", "15", "--interval", "0.05")
    done = subprocess.run(
        [sys.executable, "-m", "tiltd.daemon", "demo", "--resource-manager", "torque",
         "--folder", str(tmp_path / "demo"), *size, "--json"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert [check for check in report["checks"] if not check["kept"]] == []
    promises = {check["promise"] for check in report["checks"]}
    assert {"no scratch was ever over-committed", "who had to wait for scratch said so"} <= promises
    assert done.returncode == 0 and report["ok"]
