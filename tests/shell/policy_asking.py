"""Questions to the policy, asked as on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon.cli.dispatch import dispatch


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No site: neither a tiltd.toml nearby nor one named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TILTD_CONFIG", raising=False)
    monkeypatch.setattr("tiltd.daemon.client.PLACES", ("tiltd.toml",))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def asked(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert dispatch(["policy", *words]) == code
    out = capsys.readouterr().out
    return json.loads(out) if "--json" in words else out


@pytest.fixture
def at_home(tmp_path: Path) -> Path:
    """A site with a policy of its own; its tiltd.toml is in the working folder."""
    assert dispatch(["init", str(tmp_path)]) == 0
    own = tmp_path / "policy.d" / "10-site.toml"
    own.write_text('[limits]\nrunning_max = 7\n[[rule]]\nname = "r"\nset = { cores = 2, threads = 1 }\n')
    return own
