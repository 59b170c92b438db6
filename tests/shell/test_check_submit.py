"""``tiltd check --submit``: a real job on every node tells what works there, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn

CONFIG = """
state_dir = "{0}/state"
resource_manager = "{1}"
[[feed]]
name = "krios1"
path = "{0}/feed"
pipeline = "{2}"
destination = "{0}/out/{{series}}"
options = {{ {3} }}
"""
LOCAL = '[[local.node]]\nname = "here"\ncores = 1\nmemory = "1GB"\nscratch = "{0}/scratch"\n'
COMMAND = 'command = "no-such-program {output}", results = "r"'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("feed", "out", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def torque(tmp_path: Path) -> Iterator[StandIn]:
    nodes = [Pretend(name, cores=2, scratch_bytes=200_000_000) for name in ("core-012", "core-014")]
    with StandIn(tmp_path / "torque", nodes) as torque:
        yield torque


def check(site: Path, manager: str, table: str, *more: str, options: str = COMMAND) -> int:
    text = CONFIG.format(site, manager, "command" if options else "wbp", options)
    (site / "tiltd.toml").write_text(text + table.replace("{0}", str(site)))
    return dispatch(["check", "--config", str(site / "tiltd.toml"), "--submit", *more])


def told(out: str) -> dict[str, tuple[bool, str]]:
    found = {}
    for line in out.splitlines():
        mark, _, rest = line.partition("  ")
        if mark not in ("ok", "FAIL"):
            continue
        what, _, detail = rest.strip().partition(": ")
        node, _, more = detail.partition(": ")
        key = f"{what}: {node}" if more and what in ("here", "core-012", "core-014") else what
        found[key] = (mark == "ok", more or detail)
    return found


def nothing_is_left(site: Path, scratch: Path) -> bool:
    spool = site / "state" / "spool" / "attempts"
    return not [*scratch.iterdir(), *spool.iterdir(), *(site / "out").iterdir()]


def test_this_machine_as_a_node(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = site / "state" / "spool" / "attempts"
    for name in ("check-here-1600000000-7", "TS_01-3fa2c1d0.1.1.a1"):
        (spool / name).mkdir(parents=True)
    assert check(site, "local", LOCAL, options="") == 0
    (spool / "TS_01-3fa2c1d0.1.1.a1").rmdir()
    found = told(capsys.readouterr().out)
    assert all(ok for ok, _ in found.values())
    assert "here: module tiltd.plugins.reconstruct.__main__" in found
    assert "there and back" in found["here: spool"][1]
    assert "clean" in found["here: cleanup"][1]
    assert nothing_is_left(site, site / "scratch")


def test_what_is_missing_is_told_in_words(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "feed").rmdir()
    assert check(site, "local", LOCAL) == 1
    found = told(capsys.readouterr().out)
    wrong = {what for what, (ok, _) in found.items() if not ok and what.startswith("here")}
    assert wrong == {"here: feed krios1", "here: program no-such-program"}
    assert nothing_is_left(site, site / "scratch")


def test_only_the_nodes_that_are_named(
    site: Path, torque: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    table = f'[torque]\npath = "{torque.bin}"\nscratch = "{torque.scratch}"\n'
    assert check(site, "torque", table, "--node", "core-012", "--node", "core-099", options="") == 1
    found = told(capsys.readouterr().out)
    assert not found["node core-099"][0] and "known are core-012, core-014" in found["node core-099"][1]
    assert found["core-012: cleanup"][0], found
    assert "core-014: cleanup" not in found


def test_every_node_of_a_cluster_at_once(
    site: Path, torque: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    table = f'[torque]\npath = "{torque.bin}"\nscratch = "{torque.scratch}"\n'
    check(site, "torque", table, options="")
    out = capsys.readouterr().out
    found = told(out)
    for name in ("core-012", "core-014"):
        assert found[f"node {name}"][0], out
        assert found[f"{name}: scratch"][0] and f"nodes/{name}/scratch" in found[f"{name}: scratch"][1]
        assert found[f"{name}: cleanup"][0], out
        assert not list(Path(torque.scratch.replace("{node}", name)).iterdir())


def test_a_job_that_does_not_start_is_withdrawn(
    site: Path, torque: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    torque.do("node_lost", node="core-014")
    table = f'[torque]\npath = "{torque.bin}"\nscratch = "{torque.scratch}"\n'
    assert check(site, "torque", table, "--node", "core-014", "--seconds", "2", options="") == 1
    found = told(capsys.readouterr().out)
    assert "has not started within 2 s" in found["core-014: job"][1]
    assert not found["core-014: cleanup"][0]
    listed = subprocess.run([torque.bin / "qstat", "-x"], capture_output=True, text=True, check=True).stdout
    assert "<job_state>Q" not in listed, "it was deleted"
