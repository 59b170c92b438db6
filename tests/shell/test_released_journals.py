"""A journal of every release is read, and means what it meant, with the code as it is now.

``tests/golden/journals/write.py`` writes one for each release.  When a test here fails, a stored shape or
what a fact means has changed.  If the release is not out yet, write its journal again; else raise the
version of that kind in ``facts.VERSIONS`` and add the step to ``upcasters.STEPS``.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tiltd.daemon.core.facts import FACTS, VERSIONS
from tiltd.daemon.core.model import State
from tiltd.daemon.core.state import CoreState, Snapshot, replay
from tiltd.daemon.journal import Journal, decode_fact, encode
from tiltd.daemon.reader import JournalReader
from tiltd.daemon.upcasters import SNAPSHOT, SNAPSHOT_VERSION, upcast

RELEASED = sorted((Path(__file__).parents[1] / "golden" / "journals").glob("*.sql"))
NAMES = [path.stem for path in RELEASED]


@pytest.fixture(params=RELEASED, ids=NAMES)
def released(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def journal(released: Path, tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(released.read_text(encoding="utf-8"))
    connection.close()
    return path


def stored(path: Path) -> Iterator[tuple[str, int, str]]:
    """Kind, version and body of every fact."""
    connection = sqlite3.connect(path)
    yield from connection.execute("SELECT kind, version, body FROM facts ORDER BY seq")
    connection.close()


def recorded_state(released: Path) -> CoreState:
    document = json.loads(released.with_suffix(".state.json").read_text(encoding="ascii"))
    version = sqlite_version(released)
    return CoreState.restore(msgspec.convert(upcast(SNAPSHOT, version, document), Snapshot))


def sqlite_version(released: Path) -> int:
    """The version of snapshots in that release, as its own snapshot tells."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(released.read_text(encoding="utf-8"))
    ((version,),) = connection.execute("SELECT version FROM snapshot")
    connection.close()
    return int(version)


def lost(old: Any, new: Any, where: str) -> list[str]:
    """What stands in an old document and not in the new one, by its place."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key, value in old.items()
            for line in (lost(value, new[key], f"{where}.{key}") if key in new else [f"{where}.{key}"])
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for n, value in enumerate(old) for line in lost(value, new[n], f"{where}[{n}]")]
    return [] if old == new else [f"{where}: {old!r} became {new!r}"]


async def test_it_loads_to_the_state_that_was_recorded(released: Path, journal: Path) -> None:
    opened = Journal.open(journal)
    state = opened.load()
    await opened.close()
    assert state == recorded_state(released)
    assert {dataset.state for dataset in state.datasets.values()} == set(State)


def test_every_fact_from_the_first_on_folds_to_the_same(released: Path, journal: Path) -> None:
    """The snapshot in its middle is a short cut and nothing else."""
    assert replay(decode_fact(*row) for row in stored(journal)) == recorded_state(released)


def test_nothing_that_was_stored_is_dropped(journal: Path) -> None:
    """A field that was renamed or taken away would be read as absent, without a word."""
    faults = []
    for kind, version, body in stored(journal):
        old = upcast(kind, version, json.loads(body))
        faults += lost(old, json.loads(encode(decode_fact(kind, version, body))), kind)
    assert faults == []


def test_the_working_set_has_its_rows(journal: Path) -> None:
    async def load() -> CoreState:
        opened = Journal.open(journal)
        state = opened.load()
        await opened.close()
        return state

    state, reader = asyncio.run(load()), JournalReader(journal)
    rows = {dataset.dataset_id: dataset for dataset in reader.select(live=True)}
    assert rows.keys() == state.datasets.keys(), "how they stand, only the state tells"
    gone = {dataset.tilt_series_name: dataset for dataset in reader.select(live=False)}
    assert {"TS_01", "TS_02", "TS_03", "TS_04"} == set(gone)
    assert gone["TS_02"].state is State.FAILED and gone["TS_04"].hold("before_tiltd") is not None
    assert [seen.reason for seen in reader.ignored("krios1")] == ["montage"]
    reader.close()


def test_the_release_in_the_making_has_every_kind_of_fact() -> None:
    """Also the proof that a new kind, or a new version of one, comes with a journal that holds it."""
    known: set[tuple[str, int]] = set()
    for path in RELEASED:
        connection = sqlite3.connect(":memory:")
        connection.executescript(path.read_text(encoding="utf-8"))
        known |= set(connection.execute("SELECT DISTINCT kind, version FROM facts"))
        known |= {(SNAPSHOT, version) for (version,) in connection.execute("SELECT version FROM snapshot")}
        connection.close()
    wanted = {(kind, VERSIONS[kind]) for kind in FACTS} | {(SNAPSHOT, SNAPSHOT_VERSION)}
    assert sorted(wanted - known) == [], "run tests/golden/journals/write.py"


def test_a_dropped_or_changed_field_is_found() -> None:
    old = {"a": [{"b": 1, "c": 2}], "d": 3}
    assert lost(old, {"a": [{"b": 1}], "d": 4, "new": 5}, "Fact") == ["Fact.a[0].c", "Fact.d: 3 became 4"]
