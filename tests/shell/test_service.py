"""The systemd unit is understood by systemd, and keeps local jobs alive."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")


def analyze(*argv: str | Path) -> tuple[int, str]:
    argv = ("systemd-analyze", *argv)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def unit(project: Path, tmp_path: Path) -> Path:
    """The unit with programs in it that are there."""
    text = (project / "deploy" / "systemd" / "tiltd.service").read_text(encoding="utf-8")
    copy = tmp_path / "tiltd.service"
    copy.write_text(re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/sh", text, flags=re.MULTILINE))
    return copy


@needs_systemd
def test_systemd_understands_the_unit(unit: Path) -> None:
    # An unknown key is told on a line of its own, with status 0.
    assert analyze("verify", unit) == (0, "")


@needs_systemd
def test_a_misspelt_key_is_told(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilegs"))
    assert "NoNewPrivilegs" in analyze("verify", unit)[1]


@needs_systemd
def test_the_unit_is_hardened(unit: Path) -> None:
    status, told = analyze("security", "--offline=true", "--threshold=20", unit)
    assert status == 0, told


def test_stopping_the_daemon_leaves_its_jobs(unit: Path) -> None:
    assert "\nKillMode=process\n" in unit.read_text()
