"""``tiltd replay``: a journal that the simulation wrote, whole, pruned, and spoilt."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.journal import Journal
from tiltd.daemon.replay import replay
from tiltd.daemon.simulate.heap import HeapClock
from tiltd.daemon.simulate.scene import Scene


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A journal with a snapshot in its middle, and datasets still live."""
    clock = HeapClock(Scene(datasets=25, nodes=2, failures=0.2))
    journal = Journal.open(tmp_path / "journal.sqlite")
    for number, (_, step) in enumerate(clock.steps()):
        journal.append_now([step])
        if number == 150:
            await journal.save(clock.core.state)
        if number == 400:
            break
    live = len(clock.core.state.datasets)
    assert live
    assert journal.load() == clock.core.state
    await journal.close()
    return tmp_path / "journal.sqlite"


async def test_a_whole_journal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replay(path)
    assert found.faults == []
    assert not found.partial
    assert dispatch(["replay", str(path.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["facts"] == sum(told["kinds"].values()) == found.facts
    assert told["kinds"]["DatasetFound"] >= 25
    assert dispatch(["replay", str(path)]) == 0
    assert "Every fact is legal." in capsys.readouterr().out


async def test_a_fact_that_cannot_be(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE facts SET kind = 'DatasetParked' WHERE kind = 'JobAccepted' AND seq > 60")
        body = "json_remove(body, '$.attempt_id', '$.job_id')"
        connection.execute(f"UPDATE facts SET body = {body} WHERE kind = 'DatasetParked'")
    assert dispatch(["replay", str(path)]) == 1
    out = capsys.readouterr().out
    assert "DatasetParked cannot happen in state reserved" in out
    assert "the snapshot at fact" in out or "cannot happen" in out


async def test_a_fact_of_a_later_release(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE facts SET version = 99 WHERE seq = 7")
    assert dispatch(["replay", str(path)]) == 1
    assert "run the release that wrote it" in capsys.readouterr().err


async def test_a_pruned_journal_is_folded_from_its_snapshot(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM facts WHERE seq = 3")
    found = replay(path)
    assert found.partial
    assert found.faults == []
    assert found.state == Journal.open(path).load()


async def test_the_story_of_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(path) as connection:
        dataset_id = connection.execute("SELECT dataset_id FROM datasets ORDER BY found_at").fetchone()[0]
    assert dispatch(["replay", str(path), "--dataset", dataset_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "DatasetFound" in lines[0]
    assert dispatch(["replay", str(path), "--dataset", "no\nsuch"]) == 4
    assert "no\\nsuch" in capsys.readouterr().err


def test_no_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["replay", str(tmp_path / "none.sqlite")]) == 1
    assert "cannot be opened" in capsys.readouterr().err
