"""`tiltd check --sandbox`: the unit's sandbox, whole, and nothing of how the service lives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.units import SETS, analyze, lay_out
from tiltd.daemon.cli import sandbox
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.cli.probing import probe_memory

UNIT = """# /etc/systemd/system/tiltd.service
[Unit]
Description=tiltd
[Service]
Type=notify
User=tiltd
ExecStart=/opt/tiltd/bin/tiltd run --config /etc/tiltd/tiltd.toml
WatchdogSec=60
KillMode=process
RuntimeDirectory=tiltd
ReadWritePaths=/data/tomograms \\
  /scratch
SystemCallFilter=@system-service
; old
# /etc/systemd/system/tiltd.service.d/site.conf
[Service]
SystemCallFilter=
PrivateTmp = no
[Install]
WantedBy=multi-user.target
"""


def test_the_command_has_every_line_of_the_sandbox_in_its_order() -> None:
    assert sandbox.command(UNIT, ["--config", "/etc/tiltd/tiltd.toml"]) == [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect",
        "--property=User=tiltd",
        "--property=RuntimeDirectory=tiltd",
        "--property=ReadWritePaths=/data/tomograms    /scratch",
        "--property=SystemCallFilter=@system-service",
        "--property=SystemCallFilter=",
        "--property=PrivateTmp=no",
        "--property=RuntimeDirectoryPreserve=yes",
        "--", "/opt/tiltd/bin/tiltd", "check", "--config", "/etc/tiltd/tiltd.toml",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_it_is_as_close_as_the_unit(project: Path, tmp_path: Path, kind: str) -> None:
    """By systemd's own judgement, setting by setting."""
    unit = lay_out(project, tmp_path / "unit", SETS[kind], real_programs=True)
    text = "\n".join(
        path.read_text() for path in (unit, *sorted((unit.parent / "tiltd.service.d").iterdir()))
    )
    given = [
        word.removeprefix("--property=")
        for word in sandbox.command(text, [])
        if word.startswith("--property=")
    ]
    again = tmp_path / "again" / "tiltd.service"
    again.parent.mkdir()
    again.write_text("[Service]\nNotifyAccess=main\nExecStart=/bin/sh\n" + "\n".join(given) + "\n")
    judge = ("security", "--offline=true", "--threshold=100", "--json=short")
    assert analyze(*judge, again) == analyze(*judge, unit)
    assert len(given) > 30


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "systemctl cannot be started"),
        (subprocess.CompletedProcess([], 1, "", "No files found for tiltd.service.\n"), "install it first"),
        (subprocess.CompletedProcess([], 0, "[Service]\nUser=x\n", ""), "has no ExecStart"),
    ],
)
def test_what_stands_in_the_way_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: subprocess.CompletedProcess[str] | None,
    told: str,
) -> None:
    def systemctl(*argv: object, **options: object) -> subprocess.CompletedProcess[str]:
        if answer is None:
            raise FileNotFoundError(2, "No such file or directory")
        return answer

    monkeypatch.setattr(subprocess, "run", systemctl)
    assert dispatch(["check", "--sandbox"]) == 1
    assert told in capsys.readouterr().err


def test_the_other_options_go_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(sandbox, "unit_text", lambda unit: UNIT if unit == "tiltd@em.service" else "")
    monkeypatch.setattr(sandbox.os, "execvp", lambda program, argv: asked.append(argv))
    config = tmp_path / "tiltd.toml"
    config.touch()
    options = ["--config", str(config), "--json", "--submit", "--node", "n1", "--seconds", "9"]
    dispatch(["check", "--sandbox", "tiltd@em.service", *options])
    (argv,) = asked
    assert argv[argv.index("--") + 1 :] == [
        "/opt/tiltd/bin/tiltd", "check", "--config", str(config), "--json", "--submit", "--node", "n1",
        "--seconds", "9.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "ok"),
    [
        ({}, True),
        ({"system.slice/tiltd.service": "max"}, True),
        ({"system.slice/tiltd.service": "4294967296"}, False),
        ({"system.slice/tiltd.service": "max", "system.slice": "4294967296"}, False),
        ({"system.slice/tiltd.service": "17179869184"}, True),
    ],
)
def test_jobs_that_the_service_has_no_memory_for(tmp_path: Path, limits: dict[str, str], ok: bool) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:name=systemd:/x\n0::/system.slice/tiltd.service\n")
    groups = tmp_path / "sys/fs/cgroup"
    (groups / "system.slice/tiltd.service").mkdir(parents=True)
    for group, limit in limits.items():
        (groups / group / "memory.max").write_text(f"{limit}\n")
    check = probe_memory("memory", 16 * 10**9, tmp_path)
    assert check.ok == ok and ok == ("local.conf" not in check.detail)


def test_a_shells_own_limit_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/user-7.slice/session-1.scope\n")
    group = tmp_path / "sys/fs/cgroup/user.slice/user-7.slice/session-1.scope"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000000\n")
    assert probe_memory("memory", 16 * 10**9, tmp_path).ok


def test_a_machine_without_control_groups_is_no_fault(tmp_path: Path) -> None:
    assert probe_memory("memory", 16 * 10**9, tmp_path).ok
