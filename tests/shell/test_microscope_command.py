"""The command that plays a synthetic microscope: its arguments, refusals and end."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shell.acquired import angles, header
from tiltd.daemon.microscope import command as feed


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    feed.add_arguments(parser)
    return parser.parse_args(list(argv))


def test_the_command_writes_into_project_and_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = parsed(str(tmp_path), "--count", "2", "--together", "--project", "p", "--session", "s", "--json",
                  "--tilts", "5", "--size", "16x12", "--tilt-range=-40:40", "--rate", "1GB")  # fmt: skip
    assert feed.main(args) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["series"] for record in records} == {"TS_01", "TS_02"}
    assert sum(record["event"] == "mdoc" for record in records) == 10
    assert angles(tmp_path / "p/s/TS_02.mrc.mdoc") == [-40.0, -20.0, 0.0, 20.0, 40.0]
    assert header(tmp_path / "p/s/TS_02.mrc")["nx"] == 16


def test_the_command_shows_hostile_names_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parsed(str(tmp_path), "--count", "10", "--hostile-names", "--tilts", "3", "--size", "8")
    assert feed.main(args) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 20 and "new\\nline" in out
    out.encode("utf-8")


def test_the_command_says_plainly_what_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert feed.main(parsed(str(tmp_path / "file"), "--tilts", "3", "--size", "8")) == 1
    assert "The microscope cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--tilts", "0"], ["--tilt-range=60:-60"], ["--tilt-range=a"], ["--rate", "x"]]
)
def test_wrong_arguments_are_refused_with_a_sentence(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed("folder", *wrong)
    assert wrong[0].split("=")[0] in capsys.readouterr().err


def test_ctrl_c_stops_it_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(steps: Any) -> Any:
        yield next(steps).action
        raise KeyboardInterrupt

    monkeypatch.setattr(feed, "play", interrupted)
    assert feed.main(parsed(str(tmp_path), "--tilts", "3", "--size", "8")) == 130


def test_importing_it_does_not_import_numpy() -> None:
    code = "import sys, tiltd.daemon.microscope.command; sys.exit('numpy' in sys.modules)"
    path = str(Path(__file__).parents[1] / "_path")
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}).returncode == 0
