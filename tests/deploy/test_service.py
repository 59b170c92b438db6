"""The systemd unit and its drop-ins are understood by systemd, are as close as is told, and give reasons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.units import SETS, analyze, lay_out

TENTHS = {"alone": 20, "local": 20, "torque": 20}
"""The most exposure, in tenths; what Torque 2 and 3 need opens more, and its drop-in says why."""


@pytest.fixture(params=SETS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def unit(project: Path, tmp_path: Path, kind: str) -> Path:
    return lay_out(project, tmp_path, SETS[kind])


def test_systemd_understands_the_unit(unit: Path) -> None:
    # An unknown key is told on a line of its own, with status 0.
    assert analyze("verify", unit) == (0, "")


@pytest.mark.parametrize("kind", ["local"], indirect=True)
def test_a_misspelt_key_is_told(unit: Path) -> None:
    beside = unit.parent / "tiltd.service.d" / "local.conf"
    beside.write_text(beside.read_text().replace("PrivateTmp", "PrivatTmp"))
    assert "PrivatTmp" in analyze("verify", unit)[1]


@pytest.mark.parametrize("kind", TENTHS, indirect=True)
def test_the_unit_is_hardened(unit: Path, kind: str) -> None:
    status, told = analyze("security", "--offline=true", f"--threshold={TENTHS[kind]}", unit)
    assert status == 0, told


@pytest.mark.parametrize("kind", ["torque 2 and 3"], indirect=True)
def test_a_drop_in_counts(unit: Path) -> None:
    """Else the test above would judge nothing but the unit."""
    assert analyze("security", "--offline=true", "--threshold=20", unit)[0] != 0


@pytest.mark.parametrize("name", ["tiltd-backup.service", "tiltd-backup.timer"])
def test_systemd_understands_the_backups_units(project: Path, tmp_path: Path, name: str) -> None:
    for unit in (project / "deploy" / "systemd").glob("tiltd-backup.*"):
        text = re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/sh", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    assert analyze("verify", tmp_path / name) == (0, "")
    if name.endswith(".service"):
        status, told = analyze("security", "--offline=true", "--threshold=20", tmp_path / name)
        assert status == 0, told


def test_stopping_the_daemon_leaves_its_jobs(unit: Path) -> None:
    text = unit.read_text()
    for line in ("KillMode=process", "OOMPolicy=continue", "Type=notify", "NotifyAccess=main"):
        assert f"\n{line}\n" in text


def test_every_line_of_a_drop_in_has_its_reason(project: Path) -> None:
    """A comment stands above it, or above the lines of which it is one."""
    for path in (project / "deploy" / "systemd" / "drop-ins").glob("*.conf"):
        explained = False
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("["):
                explained = False
            elif line.startswith("# "):
                explained = True
            assert not re.match(r"#?[A-Z]\w+=", line) or explained, f"{path.name}: {line}"


def test_torque_relaxes_what_its_clients_need_and_nothing_else(project: Path) -> None:
    text = (project / "deploy" / "systemd" / "drop-ins" / "torque.conf").read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+)=", text.partition("[Service]")[2], re.MULTILINE)
    assert keys == ["PrivateTmp", "ProtectHome", "ReadWritePaths"]
