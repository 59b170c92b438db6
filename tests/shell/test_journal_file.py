"""A journal goes forward through schemas, never back by itself, and a copy of it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shell.daemon_process import Site, running
from tiltd.daemon import journal_file
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.journal import Journal
from tiltd.daemon.journal_file import JournalError, bring_up_to_date, connect, copies_of, copy_to

GOLDEN = Path(__file__).parents[1] / "golden" / "journals"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """One that the first release has left, with series in every state."""
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((GOLDEN / "0.1.0.sql").read_text(encoding="utf-8"))
    return path


def content(path: Path) -> dict[str, list[Any]]:
    """Every table's rows, but for what says who wrote it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                r for r in connection.execute(f"SELECT * FROM {name}") if r[0] not in ("schema", "release")
            ]
            for name in names
        }


def stored(path: Path, key: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def set_meta(path: Path, **values: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def remarks(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE remarks (text TEXT)")
    connection.execute("INSERT INTO remarks SELECT kind FROM facts LIMIT 3")


def breaks_off(connection: sqlite3.Connection) -> None:
    remarks(connection)
    connection.execute("DELETE FROM facts")
    raise sqlite3.OperationalError("disk I/O error")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(path)) as connection:
        yield connection


def test_an_upgrade_migrates_step_by_step_and_leaves_a_copy(journal: Path) -> None:
    before, told = content(journal), []
    steps = {1: remarks, 2: lambda connection: connection.execute("INSERT INTO remarks VALUES ('third')")}
    with opened(journal) as connection:
        bring_up_to_date(connection, journal, lambda: told.append(1), "0.3.0", steps, 3)
        # This release's own is neither copied nor migrated again.
        bring_up_to_date(connection, journal, pytest.fail, "0.3.0", {}, 3)
    assert (stored(journal, "schema"), stored(journal, "release")) == ("3", "0.3.0")
    after = content(journal)
    assert len(after.pop("remarks")) == 4 and after == before
    (copy,) = copies_of(journal)
    assert copy.name == "journal.left-by-0.1.0.sqlite" and content(copy) == before and told
    assert stored(copy, "schema") == "1"


def test_a_migration_that_breaks_off_changes_nothing(journal: Path) -> None:
    before = content(journal)
    with opened(journal) as connection, pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        bring_up_to_date(connection, journal, release="0.2.0", migrations={1: breaks_off}, schema_version=2)
    assert content(journal) == before and stored(journal, "schema") == "1"
    with opened(journal) as connection:
        bring_up_to_date(connection, journal, release="0.2.0", migrations={1: remarks}, schema_version=2)
    assert stored(journal, "schema") == "2"


def test_without_room_for_the_copy_nothing_is_begun(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9000, 8000, 1000))
    with (
        opened(journal) as connection,
        pytest.raises(JournalError, match=r"no room for .*left-by-0\.1\.0.* make room"),
    ):
        bring_up_to_date(connection, journal, release="0.2.0", migrations={1: breaks_off}, schema_version=2)
    assert stored(journal, "schema") == "1" and copies_of(journal) == []


def test_a_later_schema_is_refused_with_what_to_do(journal: Path) -> None:
    set_meta(journal, schema="2", release="0.2.0")
    with pytest.raises(JournalError) as refused:
        Journal.open(journal)
    assert str(refused.value) == (
        f"the journal {journal} was written by tiltd 0.2.0, which is later than this one (it has schema 2, "
        "this tiltd knows 1): install that release or a later one"
    )
    shutil.copy(journal, journal.with_name("journal.left-by-0.1.0.sqlite"))
    with pytest.raises(JournalError, match=r"or go back .*: tiltd restore journal\.left-by-0\.1\.0\.sqlite$"):
        Journal.open(journal)


@pytest.mark.parametrize("kind", ["DatasetFound", "ComesLater"])
def test_a_later_fact_is_refused_before_anything_is_written(journal: Path, kind: str) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE facts SET version = 2, kind = ? WHERE seq = 1", (kind,))
    set_meta(journal, release="0.2.0")
    before = content(journal)
    with pytest.raises(JournalError, match=f"written by tiltd 0.2.0, which .*{kind} version 2 is in it"):
        Journal.open(journal)
    assert content(journal) == before and stored(journal, "release") == "0.2.0" and copies_of(journal) == []


def test_a_roll_back_that_can_read_all_is_no_matter(journal: Path) -> None:
    set_meta(journal, release="0.2.0")
    asyncio.run(Journal.open(journal).close())
    assert stored(journal, "release") != "0.2.0"
    assert [copy.name for copy in copies_of(journal)] == ["journal.left-by-0.2.0.sqlite"]


def test_copies_do_not_pile_up(journal: Path) -> None:
    for number, release in enumerate(("0.1.1", "0.1.2", "0.1.3", "0.1.4")):
        with opened(journal) as connection:
            bring_up_to_date(connection, journal, release=release)
        newest = journal.with_name(f"journal.left-by-0.1.{number}.sqlite")
        os.utime(newest, (number, number))
    assert [copy.name[-12:-7] for copy in copies_of(journal)] == ["0.1.2", "0.1.3"]


def test_a_copy_is_of_one_moment_and_one_file(journal: Path, tmp_path: Path) -> None:
    """Also while somebody writes: what is not committed is not in it, what is in the log of writes is."""
    with opened(journal) as writer, opened(journal) as reader:
        writer.execute("INSERT INTO seen VALUES ('f', x'00', '', 0, '', '', 'committed', x'')")
        writer.commit()
        writer.execute("DELETE FROM seen")
        copy_to(reader, tmp_path / "copy.sqlite")
        writer.rollback()
    reasons = [row[6] for row in content(tmp_path / "copy.sqlite")["seen"]]
    assert "committed" in reasons
    assert [path.name for path in tmp_path.glob("*copy*")] == ["copy.sqlite"]


def tiltd(*argv: str) -> int:
    return dispatch(list(argv))


def test_backup_and_restore_of_a_running_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, config = Site(tmp_path), str(tmp_path / "tiltd.toml")
    copies = tmp_path / "copies"
    with running(site) as daemon:
        site.feed("first.mrc")
        daemon.delivered("first")
        for number in range(3):
            (copies / f"journal-2026010{number}T000000Z.sqlite").parent.mkdir(exist_ok=True)
            (copies / f"journal-2026010{number}T000000Z.sqlite").write_bytes(b"old")
        assert tiltd("backup", str(copies), "--keep", "2", "--config", config) == 0
        kept = sorted(path.name for path in copies.iterdir())
        assert len(kept) == 2 and kept[0] == "journal-20260102T000000Z.sqlite"
        site.feed("second.mrc")
        daemon.delivered("second")
        capsys.readouterr()
        assert tiltd("restore", str(copies / kept[1]), "--config", config) == 1
        assert f"another tiltd owns {site.state}; stop it first" in capsys.readouterr().err
        daemon.stop()
        assert tiltd("restore", str(copies / kept[0]), "--config", config) == 1
        assert "is no whole copy of a journal" in capsys.readouterr().err
        assert tiltd("restore", str(copies / kept[1]), "--config", config) == 0
        assert "the one that was there is journal.replaced-1.sqlite now" in capsys.readouterr().out
        daemon.start()
        daemon.wait(lambda: set(daemon.states()) == {"first", "second"})
        # What the copy does not know is found by its result, or held; nothing runs again.
        assert daemon.states()["first"] == "delivered"
        assert sorted(run.partition("-")[2].partition("-")[0] for run in site.runs()) == ["first", "second"]


def test_what_is_no_journal_is_not_put_back(journal: Path, tmp_path: Path) -> None:
    before = content(journal)
    for name, made in (("none.sqlite", b""), ("torn.sqlite", journal.read_bytes()[:5000])):
        (tmp_path / name).write_bytes(made)
        with pytest.raises(JournalError, match="is no whole copy of a journal"):
            journal_file.put_back(tmp_path / name, journal)
    with pytest.raises(JournalError, match="cannot be opened"):
        journal_file.put_back(tmp_path / "missing.sqlite", journal)
    assert content(journal) == before


def test_what_root_puts_back_belongs_to_the_daemons_account(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((Path(path).name, uid, gid)))
    shutil.copy(journal, tmp_path / "copy.sqlite")
    journal_file.put_back(tmp_path / "copy.sqlite", journal)
    whose = journal.parent.stat()
    assert given == [("journal.to-come.sqlite", whose.st_uid, whose.st_gid)]
