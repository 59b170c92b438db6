"""The journal: all of a step or nothing of it, what it knows of adopted series, and orphans of the spool."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.durable import write_durably
from tiltd.daemon.journal import Journal, JournalError
from tiltd.daemon.orphans import find_orphans
from tiltd.daemon.reader import JournalReader
from tiltd.daemon.spool import Spool

HOSTILE = os.fsdecode(b"p/-rf \n$(x)\xff.mrc")


def found(number: int = 1, key: str = HOSTILE) -> f.DatasetFound:
    return f.DatasetFound(
        at=1.0, dataset_id=f"x-{number}.1.1", feed="k", series_key=key, tilt_series_name=key,
        series_kind="stack",
        revision=1, run=1, labels={}, pipeline="command", options={}, baseline=False, stat_signature="s1",
    )  # fmt: skip


def dataset(number: int = 1, revision: int = 1, key: str = HOSTILE) -> Dataset:
    return Dataset(
        dataset_id=f"x-{number}.{revision}.1", feed="k", series_key=key, tilt_series_name=key, kind="stack",
        revision=revision, run=1, found_at=1.0, state=State.ARRIVING, state_since_at=1.0, labels={},
        pipeline="command", options={},
    )  # fmt: skip


def step(*facts: f.Fact, records: tuple[Dataset, ...] = (), live: bool = True) -> Step:
    left = tuple(replace(record, finalized_at=2.0) for record in records)
    return Step(facts=facts, records=records if live else left, effects=())


def test_an_append_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite")
    steps = [step(found(1), records=(dataset(1),)), step(found(2, "b"), records=(dataset(2, key="b"),))]
    journal._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(sqlite3.Error):
        journal.append_now(steps)
    assert journal.sequence == 0
    journal._connection.execute("PRAGMA query_only=OFF")
    journal.append_now(steps)
    assert journal.sequence == 2
    reader = JournalReader(tmp_path / "journal.sqlite")
    assert [seq for seq, _ in reader.facts("x-1.1.1")] == [1]
    seen = reader.get("k", HOSTILE)
    assert seen is not None
    assert seen.stat_signature == "s1"


def test_names_that_are_no_utf8_come_back_as_they_went(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite")
    journal.append_now([step(found(), records=(dataset(),))])
    reader = JournalReader(tmp_path / "journal.sqlite")
    assert [d.series_key for d in reader.find(HOSTILE)] == [HOSTILE]
    assert Journal.open(tmp_path / "journal.sqlite").load().datasets["x-1.1.1"].series_key == HOSTILE


def test_an_adopted_series_is_known_by_its_newest_revision(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite")
    for revision in (2, 1):
        record = dataset(revision=revision)
        adopted = f.DatasetAdopted(at=2.0, dataset_id=record.dataset_id, record=record)
        journal.append_now([step(adopted, records=(record,), live=False)])
    reader = JournalReader(tmp_path / "journal.sqlite")
    seen = reader.get("k", HOSTILE)
    assert seen is not None
    assert (seen.revision, seen.dataset_id, seen.stat_signature) == (2, "x-1.2.1", "")
    assert reader.finished_ids() == {"x-1.1.1", "x-1.2.1"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [("Nonsense", "run the release that wrote it, or a later one"), ("FeedMet", "restore it from a backup")],
)
def test_a_journal_that_cannot_be_understood_says_what_to_do(tmp_path: Path, kind: str, said: str) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite")
    with journal._connection as connection:
        connection.execute("INSERT INTO facts VALUES (1, 1.0, '', ?, 1, '{}')", (kind,))
    with pytest.raises(JournalError, match=f"cannot be read.*{said}"):
        Journal.open(tmp_path / "journal.sqlite").load()


def attempt(spool: Spool, attempt_id: str, mark: str, end: str = "") -> None:
    folder = spool.folder(attempt_id)
    folder.mkdir(parents=True)
    (folder / mark).write_text("{}")
    if end:
        told = f'{{"job_id": "7", "nonce": "", "outcome": "{end}", "ended_at": 1.0, "node": "a"}}\n'
        (folder / "end").write_text(told)


def test_only_what_runs_may_run_or_left_a_result_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    attempt(spool, "queued.1.1.a1", "job.json")
    attempt(spool, "runs.1.1.a2", "claimed.7")
    attempt(spool, "runs.1.1.a1", "claimed.6", "failed")
    attempt(spool, "done.1.1.a10", "claimed.7", "success")
    attempt(spool, "done.1.1.a9", "claimed.7", "failed")
    attempt(spool, "stranded.1.1.a1", "claimed.7", "stranded")
    attempt(spool, "failed.1.1.a1", "claimed.7", "failed")
    attempt(spool, "ended.1.1.a1", "claimed.7", "terminated")
    attempt(spool, "revoked.1.1.a1", "revoked")
    attempt(spool, "finished.1.1.a1", "claimed.7", "success")
    monkeypatch.setattr(spool, "story", lambda attempt_id: dataset())
    told = list(find_orphans(spool, lambda _: None, {"finished.1.1"}, lambda: 5.0))
    assert sorted(orphan.attempt_id for orphan in told) == [
        "done.1.1.a10", "queued.1.1.a1", "runs.1.1.a2", "stranded.1.1.a1",
    ]  # fmt: skip


async def test_what_no_name_can_be_is_asked_for_in_vain(tmp_path: Path) -> None:
    await Journal.open(tmp_path / "journal.sqlite").close()
    reader = JournalReader(tmp_path / "journal.sqlite")
    for half in ("\ud800", "TS\udcff\ud800"):
        assert reader.find(half) == reader.facts(half) == reader.select(feed=half) == []
        assert reader.select(project=half) == reader.select(session=half) == []
        assert reader.dataset(half) is None


def test_many_threads_write_one_file_whole(tmp_path: Path) -> None:
    """Submissions at once install the same runner."""
    troubles: list[BaseException] = []
    start = threading.Barrier(8)

    def write() -> None:
        try:
            start.wait()
            for _ in range(20):
                write_durably(str(tmp_path / "runner.py"), b"x" * 50_000, 0o755)
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert os.listdir(tmp_path) == ["runner.py"]
    assert (tmp_path / "runner.py").stat().st_size == 50_000
