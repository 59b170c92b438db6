"""Attempts in the spool that the journal does not know: it was lost, or restored from an older backup."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from .core.model import Dataset
from .core.observations import SpoolOrphan
from .spool import Spool

FOLLOWED = frozenset({"success", "stranded"})


def find_orphans(
    spool: Spool,
    known: Callable[[str], Dataset | None],
    finished: Collection[str],
    now: Callable[[], float],
) -> Iterator[SpoolOrphan]:
    """Each dataset's newest attempt that ``known`` (by dataset id) does not have, told by its own job file.

    What runs, may yet run, or left a result is told.  What was withdrawn or failed is not: its series is
    found again in the feed and held for release, so that nothing is run again by itself.  ``finished`` are
    datasets of which all is known.  Costs the names of all attempt folders, and a look at the others' newest
    attempt, with its job file where that is unknown; raises Temporary.
    """
    newest: dict[str, tuple[int, str]] = {}
    for attempt_id in spool.attempts():
        dataset_id, _, number = attempt_id.rpartition(".a")
        if number.isascii() and number.isdigit() and dataset_id not in finished:
            newest[dataset_id] = max(newest.get(dataset_id, (0, "")), (int(number), attempt_id))
    for dataset_id, (_, attempt_id) in newest.items():
        dataset = known(dataset_id)
        if dataset is not None and any(a.attempt_id == attempt_id for a in dataset.attempts):
            continue
        seen = spool.read(attempt_id)
        if not seen.prepared or seen.revoked or (seen.end is not None and seen.end.outcome not in FOLLOWED):
            continue
        record = spool.story(attempt_id)
        if record is not None:
            yield SpoolOrphan(at=now(), attempt_id=attempt_id, record=record, job_id=seen.claimed_by)
