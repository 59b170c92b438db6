"""What docs/replaying.md tells to type, works."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from docs.pages import pages


def test_the_story_is_folded_as_the_page_says(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released = project / "tests" / "golden" / "journals" / "0.1.0.sql"
    connection = sqlite3.connect(tmp_path / "oddity.sqlite")
    connection.executescript(released.read_text(encoding="utf-8"))
    connection.close()
    fold = re.findall(
        r"^```python\n(.*?)^```", pages(project)["docs/replaying.md"], re.MULTILINE | re.DOTALL
    )[0]
    monkeypatch.chdir(tmp_path)
    exec(fold, {})
    told = capsys.readouterr().out.splitlines()
    assert told[0].split()[1:] == ["DatasetFound", "arriving"]
    assert told[-1].endswith("DatasetFinalized left the working set")


def test_the_journal_is_copied_as_the_page_says(project: Path, tmp_path: Path) -> None:
    line = re.findall(r"python3 -c '(.*)'", pages(project)["docs/replaying.md"])[0]
    original = sqlite3.connect(tmp_path / "journal.sqlite")
    original.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    line = line.replace("/var/lib/tiltd/journal.sqlite", str(tmp_path / "journal.sqlite"))
    exec(line.replace("oddity.sqlite", str(tmp_path / "oddity.sqlite")), {})
    assert sqlite3.connect(tmp_path / "oddity.sqlite").execute("SELECT x FROM t").fetchall() == [(1,)]
