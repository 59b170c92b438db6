"""`tiltd init`, `check` and `run` before there is a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import Policy
from tiltd.daemon.policy_files import shipped
from tiltd.policy.policy import load


def test_init_writes_what_check_finds_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "with blank"
    assert dispatch(["init", str(folder)]) == 0
    assert f"tiltd check --config {folder}/tiltd.toml" in capsys.readouterr().out
    settings = Settings.load(folder / "tiltd.toml")
    assert settings.feeds[0].destination == f"{folder}/tomograms/{{project}}/{{session}}/{{series}}"
    assert settings.policy_dir == folder / "policy.d"
    before = sorted(str(path) for path in folder.rglob("*"))
    assert dispatch(["check", "--config", str(folder / "tiltd.toml")]) == 0
    assert "checks passed" in capsys.readouterr().out
    assert sorted(str(path) for path in folder.rglob("*")) == before
    (folder / "tiltd.toml").write_text("mine")
    assert dispatch(["init", str(folder)]) == 1
    assert (folder / "tiltd.toml").read_text() == "mine"


def test_every_default_that_init_shows_is_the_default(tmp_path: Path) -> None:
    dispatch(["init", str(tmp_path)])
    text = (tmp_path / "tiltd.toml").read_text()
    plain = Settings.load(tmp_path / "tiltd.toml")
    skipped = ("# labels", "# options", "# node_path", "# import =", "# socket", "# group", "# spool_dir")
    lines = [
        line[2:] if line.startswith("# ") and " = " in line and not line.startswith(skipped) else line
        for line in text.splitlines()
    ]
    (tmp_path / "tiltd.toml").write_text("\n".join(lines))
    assert Settings.load(tmp_path / "tiltd.toml") == plain
    assert "\njobs_seconds = 2" in (tmp_path / "tiltd.toml").read_text()


def test_the_policy_that_init_writes_is_the_shipped_one_and_its_example_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(["init", str(tmp_path)])
    config, path = str(tmp_path / "tiltd.toml"), tmp_path / "policy.d" / "10-site.toml"
    capsys.readouterr()
    dispatch(["policy", "check", "--config", config, "--json", str(path)])
    untouched = json.loads(capsys.readouterr().out)
    assert untouched["policy_version"] == shipped_version()
    text = path.read_text()
    assert "# cores = { base = 4" in text and "[learning]" in text
    head, _, example = text.partition("# [[rule]]")
    lines = [line.removeprefix("# ") if line.startswith("# ") else line for line in example.splitlines()]
    path.write_text(head + "[[rule]]" + "\n".join(lines) + "\n")
    assert dispatch(["policy", "test", "--config", config]) == 0
    assert "all 1 tests passed" in capsys.readouterr().out


def shipped_version() -> str:
    found = load([("default.toml", shipped())])
    assert isinstance(found, Policy)
    return found.version


def test_init_refuses_odd_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a{b}", "new\nline", 'quo"te', "\udcff"):
        assert dispatch(["init", str(tmp_path / name)]) == 1
        assert "take a folder whose name" in capsys.readouterr().err


def test_check_tells_each_thing_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["init", str(tmp_path)])
    capsys.readouterr()
    path = tmp_path / "tiltd.toml"
    (tmp_path / "incoming").rmdir()
    (tmp_path / "policy.d" / "10-site.toml").write_text("[completeness]\nquite_min = '5min'\n")
    path.write_text(path.read_text().replace('# pipeline = "wbp"', 'pipeline = "wpb"'))
    assert dispatch(["check", "--config", str(path), "--json"]) == 1
    checks: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    wrong = {check["what"]: check["detail"] for check in checks if not check["ok"]}
    assert set(wrong) == {"policy", "pipeline wpb", "feed microscope"}
    assert "did you mean" in wrong["policy"]
    assert "did you mean 'wbp'" in wrong["pipeline wpb"]
    assert "cannot be read (No such file or directory); mount it" in wrong["feed microscope"]


def test_check_of_a_wrong_file_tells_its_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.toml").write_text("prot = 1\nspool_dir = 'x'\n")
    assert dispatch(["check", "--config", str(tmp_path / "t.toml")]) == 1
    out = capsys.readouterr().out
    assert "t.toml:1: prot: unknown key" in out
    assert "t.toml:2: spool_dir: must be an absolute path" in out


def test_run_with_a_wrong_file_fails_with_its_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.toml").write_text("prot = 1\n")
    assert dispatch(["run", "--config", str(tmp_path / "t.toml")]) == 1
    assert "t.toml:1: prot: unknown key" in capsys.readouterr().err
