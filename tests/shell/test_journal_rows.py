"""A dataset's row is its newest record."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from core.scene import Bench
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import Dataset
from tiltd.daemon.journal import Journal
from tiltd.daemon.reader import JournalReader


def records() -> list[Dataset]:
    """What is written of three series in turn: with and without a series, changed, another one, over."""
    bench = Bench()
    told = []
    for name in ("A", '"series":null', "C"):
        record = bench.core.state.datasets[bench.arrive(name)]
        assert record.series is not None
        other = replace(record.series, pixel_spacing_angstrom=7.5)
        told.append([
            replace(record, series=None),
            record,
            replace(record, state_since_at=9.0, labels={"series": "null"}),
            replace(record, series=other),
            replace(record, series=other, finalized_at=10.0),
        ])  # fmt: skip
    return [record for turn in zip(*told, strict=True) for record in turn]


def test_a_row_is_the_newest_record(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite")
    reader = JournalReader(tmp_path / "journal.sqlite")
    for record in records():
        fact = f.HoldLifted(at=1.0, dataset_id=record.dataset_id, cause="operator", by="somebody")
        journal.append_now([Step(facts=(fact,), records=(record,), effects=())])
        assert reader.dataset(record.dataset_id) == record
