"""The plugin ``torque`` keeps the promises of resource managers on the stand-in's real commands and jobs,
and on a real Torque where TILTD_TEST_TORQUE names a folder that its nodes see (and submits from there)."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from plugins.conformance_resource_managers import ResourceManagerConformance, Site
from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn
from tiltd.plugins.torque import TorqueManager

REAL = os.environ.get("TILTD_TEST_TORQUE", "")


@pytest.fixture(scope="module")
def torque(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    nodes = [Pretend("core-012", cores=4, scratch_bytes=1 << 30), Pretend("core-014", scratch_bytes=1 << 30)]
    with StandIn(tmp_path_factory.mktemp("torque"), nodes) as running:
        yield running


class TestTorqueOnStandIn(ResourceManagerConformance):
    @pytest.fixture
    def site(self, tmp_path: Path, torque: StandIn) -> Iterator[Site]:
        """One server for all: what an earlier test left is forgotten."""
        for job in torque.do("told")["jobs"]:
            torque.do("forget", job_id=job["job_id"])
        site = Site(tmp_path, TorqueManager)
        site.context = replace(site.context, owner=getpass.getuser())
        site.settings = {"path": str(torque.bin), "settle_seconds": 0.2} | {
            "node": [
                {"names": name, "mode": "pinned", "scratch": torque.scratch.format(node=name)}
                for name in ("core-012", "core-014")
            ]
        }
        yield site
        site.close()


@pytest.mark.skipif(not REAL, reason="TILTD_TEST_TORQUE names no folder that a real Torque's nodes see")
class TestTorque(ResourceManagerConformance):
    @pytest.fixture
    def site(self) -> Iterator[Site]:
        """A journal of its own for each test: a real server keeps ended jobs for minutes, and all tests give
        theirs the same names."""
        with tempfile.TemporaryDirectory(dir=REAL) as folder:
            site = Site(Path(folder), TorqueManager)
            site.context = replace(site.context, owner=getpass.getuser(), journal_id=folder)
            site.patience_seconds = 120.0
            yield site
            site.close()
