"""A snapshot is written a dataset at a time, and reads as if it were not."""

from __future__ import annotations

import json

import msgspec
import pytest

from core.scene import Bench
from tiltd.daemon.core.state import Snapshot
from tiltd.daemon.journal import pieces_of


@pytest.mark.parametrize("names", [(), ("A",), ("A", '"datasets":[]', "C")])
def test_a_snapshot_by_pieces_is_the_snapshot(names: tuple[str, ...]) -> None:
    bench = Bench()
    for name in names:
        bench.arrive(name)
    snapshot = bench.core.state.snapshot(7)
    assert len(snapshot.datasets) == len(names)
    assert msgspec.convert(json.loads(b"".join(pieces_of(snapshot))), Snapshot) == snapshot
