"""A dataset's row is written when it comes in and at its end; in between the state tells how it stands."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.scene import Bench
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.journal import Journal
from tiltd.daemon.questions.history import recorded
from tiltd.daemon.reader import JournalReader

HOSTILE = '"series":null\udcff'


class Rows:
    """A journal, and what stands in the row of a record that was written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.sqlite"
        self.journal = Journal.open(self.path)
        self.reader = JournalReader(self.path)

    def write(self, *records: Dataset) -> Dataset | None:
        facts = tuple(
            f.HoldLifted(at=1.0, dataset_id=record.dataset_id, cause="operator", by="somebody")
            for record in records
        )
        self.journal.append_now([Step(facts=facts, records=records, effects=())])
        return self.reader.dataset(records[-1].dataset_id)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


@pytest.fixture
def ready() -> Dataset:
    bench = Bench()
    record = bench.core.state.datasets[bench.arrive(HOSTILE)]
    assert record.series is not None
    return replace(record, state=State.READY, labels={"project": HOSTILE})


def test_a_row_is_written_when_it_comes_in_and_at_its_end(rows: Rows, ready: Dataset) -> None:
    assert rows.write(ready) == ready
    running = replace(ready, state=State.RUNNING)
    assert rows.write(running) == ready, "nobody would read it"
    delivered = replace(ready, state=State.DELIVERED)
    assert rows.write(delivered) == delivered
    judged = replace(delivered, verdict="good")
    assert rows.write(judged) == judged, "what is over is always as it is"
    over = replace(judged, finalized_at=0.0)
    assert rows.write(over) == over
    assert rows.reader.finished_ids() == {ready.dataset_id}


@pytest.mark.parametrize("ended", [{"state": State.FAILED}, {"finalized_at": 0.0}], ids=["failed", "parked"])
def test_what_comes_back_from_its_end_has_a_row_that_says_so(
    rows: Rows, ready: Dataset, ended: dict[str, object]
) -> None:
    rows.write(replace(ready, **ended))
    assert rows.write(ready) == ready
    assert [row.dataset_id for row in rows.reader.select(live=True)] == [ready.dataset_id]


def test_of_several_records_in_one_append_the_last_counts(rows: Rows, ready: Dataset) -> None:
    over = replace(ready, state=State.CANCELLED, finalized_at=3.0)
    assert rows.write(ready, replace(ready, state=State.RUNNING), over) == over
    assert rows.write(ready) == ready


def test_a_row_that_could_not_be_written_is_written_when_it_can(rows: Rows, ready: Dataset) -> None:
    other = sqlite3.connect(rows.path)
    rows.journal._connection.execute("PRAGMA busy_timeout=0")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        rows.write(ready)
    other.rollback()
    other.close()
    assert rows.write(ready) == ready


def test_after_a_start_a_row_is_written_once_more(rows: Rows, ready: Dataset, tmp_path: Path) -> None:
    rows.write(ready)
    rows.journal._connection.close()
    again, running = Rows(tmp_path), replace(ready, state=State.RUNNING)
    assert again.write(running) == running
    assert again.write(ready) == running


class Journaled(Bench):
    """What its core concludes stands in the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        super().__init__()

    def take(self, observation: o.Observation) -> Step:
        step = super().take(observation)
        self.journal.append_now([step])
        return step


def test_the_history_has_live_datasets_as_they_stand(rows: Rows) -> None:
    bench = Journaled(rows.journal)
    key = bench.arrive("TS")
    row = rows.reader.dataset(key)
    assert row is not None
    assert row.series is None, "it is as it came in"
    assert recorded(rows.path, 0.0) == [bench.of(key)]
