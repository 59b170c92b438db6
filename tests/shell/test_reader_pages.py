"""What the page asks the journal: rows page by page, counts, the audit; of all projects or of some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from shell.fake_daemon import HOSTILE, dataset
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.journal import Journal
from tiltd.daemon.reader import JournalReader

STATES = (State.DELIVERED, State.FAILED, State.DELIVERED, State.CANCELLED)


def finished(number: int, project: str) -> Dataset:
    return dataset(
        f"s{number:03}-aaaaaaaa.1.1",
        f"Series_{number:03}",
        series_key=f"{project}/{number}",
        state=STATES[number % 4],
        state_since_at=float(100 + number // 2),
        labels={"project": project, "session": f"day{number % 3}"},
    )


def row(record: Dataset, live: bool = False) -> Step:
    fact = f.DatasetFinalized(at=record.state_since_at, dataset_id=record.dataset_id)
    record = record if live else replace(record, finalized_at=record.state_since_at)
    return Step(facts=(fact,), records=(record,), effects=())


def acted(number: int, project: str) -> Step:
    fact = f.OperatorActed(
        at=float(number),
        by="ada",
        via="token",
        action="hold",
        dataset_id=f"s{number % 5:03}-aaaaaaaa.1.1",
        project=project,
        reason=HOSTILE,
    )
    return Step(facts=(fact,), records=(), effects=())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalReader]:
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    journal = Journal.open(path)
    mine = [finished(number, "mine") for number in range(0, 40)]
    theirs = [finished(number, "theirs") for number in range(40, 80)]
    hostile = dataset("h-bbbbbbbb.1.1", HOSTILE, state=State.FAILED, labels={"project": HOSTILE})
    same = [
        dataset(f"x{n:03}-cccccccc.1.1", "TS_01", series_key=f"x{n}", state=State.FAILED, found_at=float(n),
                labels={"project": "theirs"})
        for n in range(1, 31)
    ]  # fmt: skip
    ours = dataset("x000-cccccccc.1.1", "TS_01", state=State.FAILED, labels={"project": "mine"})
    for record in (*mine, *theirs, hostile, *same, ours):
        journal.append_now([row(record)])
    journal.append_now([row(dataset("live-dddddddd.1.1", "Series_live"), live=True)])
    for number in range(60):
        journal.append_now([acted(number, "mine" if number % 3 else "theirs")])
    found = JournalReader(path)
    yield found
    found.close()
    journal._connection.close()


def ids(rows: list[Dataset]) -> list[str]:
    return [each.dataset_id for each in rows]


def test_page_by_page_every_row_comes_once_last_changed_first(reader: JournalReader) -> None:
    seen: list[Dataset] = []
    before = None
    while page := reader.page(before=before, limit=7):
        seen += page
        before = (page[-1].state_since_at, page[-1].dataset_id)
    assert len(seen) == len(set(ids(seen))) == 112
    places = [(each.state_since_at, each.dataset_id) for each in seen]
    assert places == sorted(places, reverse=True)
    assert "live-dddddddd.1.1" not in ids(seen)


def test_a_page_of_some(reader: JournalReader) -> None:
    mine = reader.page(projects=["mine"], limit=1000)
    assert len(mine) == 41 and {each.project for each in mine} == {"mine"}
    assert reader.page(projects=[], limit=10) == []
    assert reader.page(projects=["mine"], project="theirs", limit=10) == []
    failed = reader.page(states=["failed"], projects=["mine"], session="day1", limit=100)
    assert failed and {(each.state, each.session) for each in failed} == {(State.FAILED, "day1")}
    assert ids(reader.page(text="SERIES_01", limit=100)) == [
        f"s{n:03}-aaaaaaaa.1.1" for n in range(19, 9, -1)
    ]
    assert ids(reader.page(text="s012", limit=100)) == ["s012-aaaaaaaa.1.1"]
    assert ids(reader.page(project=HOSTILE, limit=5)) == ["h-bbbbbbbb.1.1"]
    assert reader.page(text="%", limit=5) == [] and reader.page(text="'; DROP TABLE facts", limit=5) == []


def test_counts(reader: JournalReader) -> None:
    assert reader.counts() == {"delivered": 40, "failed": 52, "cancelled": 20}
    assert reader.counts(["mine"]) == {"delivered": 20, "failed": 11, "cancelled": 10}
    assert reader.counts(["mine"], since_at=119.0) == {"delivered": 1, "cancelled": 1}
    assert reader.counts([]) == {}
    assert reader.projects() == sorted(["mine", "p1", "theirs", HOSTILE])


def test_ones_own_series_is_found_behind_many_of_others_of_its_name(reader: JournalReader) -> None:
    assert "x000-cccccccc.1.1" not in ids(reader.find("TS_01"))
    assert ids(reader.find("TS_01", projects=["mine"])) == ["x000-cccccccc.1.1"]
    assert ids(reader.find("x0", projects=["mine"])) == ["x000-cccccccc.1.1"]
    assert reader.find("x010-cccccccc.1.1", projects=["mine"]) == []


def test_the_audit(reader: JournalReader) -> None:
    first = reader.acts(limit=40)
    then = reader.acts(before=first[-1][0], limit=40)
    numbers = [sequence for sequence, _ in first + then]
    assert len(numbers) == 60 and numbers == sorted(numbers, reverse=True)
    assert {fact.dataset_id for _, fact in reader.acts(dataset_id="s002-aaaaaaaa.1.1")} == {
        "s002-aaaaaaaa.1.1"
    }
    assert first[0][1].reason == HOSTILE


def test_indexes_are_used(reader: JournalReader) -> None:
    """A page costs its rows, not the journal."""
    for question, index in (
        ("SELECT body FROM datasets WHERE live = 0 AND (changed_at, dataset_id) < (5, 'x') "
         "ORDER BY changed_at DESC, dataset_id DESC LIMIT 5", "datasets_finished"),
        ("SELECT state, count(*) FROM datasets WHERE live = 0 AND changed_at >= 5 AND project IN ('a', 'b') "
         "GROUP BY state", "COVERING INDEX datasets_of_project"),
        ("SELECT seq, body FROM facts WHERE kind = 'OperatorActed' ORDER BY seq DESC LIMIT 5", "facts_acted"),
        ("SELECT DISTINCT project FROM datasets", "datasets_of_project"),
    ):  # fmt: skip
        plan = " ".join(str(each[3]) for each in reader._rows(f"EXPLAIN QUERY PLAN {question}"))
        assert index in plan, plan
        assert "TEMP B-TREE FOR ORDER BY" not in plan or "count" in question, plan
