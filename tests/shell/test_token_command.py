"""``tiltd token``: made, listed, revoked; shown once, and never its hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.tokens import TokenFile, hash_of


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiltd.toml"
    path.write_text(f'state_dir = "{tmp_path}"\n')
    return str(path)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = dispatch(["token", *words])
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_token_is_made_listed_and_revoked(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--act", "--project", "p1", "--project", "p2", "--expires", "90d", "--config", config)
    code, secret, _ = told(capsys, "add", "anna", *words)
    file = TokenFile(tmp_path / "tokens.json")
    token = file.find(hash_of(secret.strip()), 0.0)
    assert code == 0 and token is not None
    assert (token.rights, token.projects) == ("act", ("p1", "p2"))
    assert token.expires_at - token.created_at == pytest.approx(90 * 86400, abs=2)
    code, out, _ = told(capsys, "list", "--config", config)
    assert code == 0 and "anna" in out and "p1, p2" in out
    _, out, _ = told(capsys, "list", "--json", "--config", config)
    assert json.loads(out)[0]["name"] == "anna" and hash_of(secret.strip()) not in out
    assert told(capsys, "revoke", "anna", "--config", config)[0] == 0
    assert file.read() == ()
    code, _, err = told(capsys, "revoke", "anna", "--config", config)
    assert code == 4 and "no token anna" in err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("add",), 2, "take one name"),
        (("list", "anna"), 2, "list takes none"),
        (("add", "a b"), 1, "no name for a token"),
        (("add", "x", "--expires", "soon"), 2, "no span of time"),
        (("burn", "x"), 2, "invalid choice"),
    ],
)
def test_wrong_words_get_a_sentence(
    config: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str
) -> None:
    found, _, err = told(capsys, *words, "--config", config)
    assert (found, sentence in err) == (code, True), err


def test_a_file_that_others_may_write_to_is_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "add", "anna", "--config", config)
    (tmp_path / "tokens.json").chmod(0o666)
    code, _, err = told(capsys, "list", "--config", config)
    assert code == 1 and "chmod 600" in err
    assert told(capsys, "add", "eve", "--config", config)[0] == 1


def test_without_settings_there_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTD_CONFIG", str(tmp_path / "nothing.toml"))
    code, _, err = told(capsys, "list")
    assert code == 2 and "cannot be read" in err
