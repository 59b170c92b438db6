"""What is booked on a node, by whom, and what of it has leaked.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .ledger import Ledger
from .model import TERMINAL, Attempt, Dataset, Record

Plight = Literal["live", "to be rescued", "leaked"]
"""``leaked``: its attempt is over, and nobody could make sure yet that nothing of it is left on the node."""


class Booking(Record):
    """One reservation on one node, in bytes of scratch."""

    attempt_id: str
    dataset_id: str
    name: str
    project: str
    node: str
    cores: int
    scratch_bytes: int
    since_at: float
    plight: Plight


def bookings(node: str, ledger: Ledger, datasets: Mapping[str, Dataset]) -> list[Booking]:
    """In order of the attempts' ids.  Costs the attempts booked there."""
    found = []
    for attempt_id, reserved in sorted(ledger.of(node).items()):
        dataset_id = attempt_id.rpartition(".a")[0]
        dataset = datasets.get(dataset_id)
        attempt = dataset.attempt_called(attempt_id) if dataset is not None else None
        found.append(
            Booking(
                attempt_id=attempt_id,
                dataset_id=dataset_id,
                name=dataset.tilt_series_name if dataset is not None else "",
                project=dataset.project if dataset is not None else "",
                node=node,
                cores=reserved.cores,
                scratch_bytes=reserved.reserved_bytes,
                since_at=reserved.reserved_at,
                plight=_plight(dataset, attempt),
            )
        )
    return found


def leaked_bytes(node: str, ledger: Ledger, datasets: Mapping[str, Dataset]) -> int:
    return sum(
        booking.scratch_bytes for booking in bookings(node, ledger, datasets) if booking.plight == "leaked"
    )


def _plight(dataset: Dataset | None, attempt: Attempt | None) -> Plight:
    if dataset is None or attempt is None:
        return "leaked"
    if dataset.rescue == attempt.attempt_id and dataset.state not in TERMINAL:
        return "to be rescued"
    return "live" if attempt.ended_at is None else "leaked"
