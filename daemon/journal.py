"""The journal: facts, the datasets' rows and the ``seen`` table, in one SQLite transaction.

One thread writes (WAL, ``synchronous=FULL``: what is recorded survives a power cut).  Facts are history and
are only ever added; the other tables are made from them and are what is read:

* ``datasets``: one row per dataset, ``live`` while it is in the working set.  It is written when the dataset
  comes in and holds its last record from its end on; in between there is nobody to read it, because live
  datasets are read from the state, and a row costs as much as all facts of a job,
* ``seen``: one row per series of a feed, what became of it and the signature of its files; by it the
  watcher knows finished stacks without remembering them,
* ``snapshot``: the working set at some fact, so that a start reads only what came after.

Names are stored as bytes, because they need not be UTF-8.  Cost: an append writes its own facts and rows;
a start reads the snapshot and at most ``SNAPSHOT_EVERY`` facts (or twice the live datasets).
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from .as_json import encode
from .core import facts as f
from .core.core import Step
from .core.model import Dataset
from .core.state import CoreState, Snapshot
from .core.transitions import IllegalTransition
from .hands import Hands
from .journal_file import JournalError, bring_up_to_date, connect, meta, on_network, unreadable
from .mounts import network_mount
from .upcasters import SNAPSHOT, SNAPSHOT_VERSION, TooNew, upcast

SNAPSHOT_EVERY = 5000
Records = Mapping[str, Dataset]
"""The last record of each dataset that an append is about."""


def as_bytes(name: str) -> bytes:
    """A name from a file system, exactly (the other way: ``as_name``)."""
    return name.encode("utf-8", "surrogateescape")


def as_name(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")


def pieces_of(snapshot: Snapshot) -> Iterator[bytes]:
    """As :func:`encode`, but a dataset at a time: the text of a thousand would be held four times, by us and
    by SQLite."""
    rest = encode(msgspec.structs.replace(snapshot, datasets=()))
    head, empty, tail = rest.partition('"datasets":[]')
    yield (head + empty[:-1]).encode()
    for number, dataset in enumerate(snapshot.datasets):
        yield (("," if number else "") + encode(dataset)).encode()
    yield ("]" + tail).encode()


def decode_fact(kind: str, version: int, body: str) -> f.Fact:
    document = upcast(kind, version, json.loads(body))
    return msgspec.convert({**document, "kind": kind}, f.FACTS[kind])


def decode_dataset(body: str) -> Dataset:
    return msgspec.convert(json.loads(body), Dataset)


class Journal:
    """The writer.  Made by ``open``; every method that touches the disk runs in its one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._hand = Hands(patience_seconds=None, name="journal")
        self.journal_id = ""
        self.sequence = 0
        self._snapshot_at = 0
        self._under_way: set[str] = set()
        """Datasets whose row says so already: since this start, so that each is written once after it."""

    @classmethod
    def open(
        cls, path: Path, mountinfo: str | None = None, copying: Callable[[], None] = lambda: None
    ) -> Journal:
        """Open or create, and bring up to date (:mod:`tiltd.daemon.journal_file`).  Raises
        :class:`JournalError`; a network file system is refused (``mountinfo``: see
        :func:`tiltd.daemon.mounts.mount_of`).  ``copying`` is called now and then while that takes long."""
        if mount := network_mount(path, mountinfo):
            raise JournalError(on_network(path, mount))
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = cls(path, connect(path))
        try:
            bring_up_to_date(journal._connection, path, copying)
            journal.journal_id = meta(journal._connection, "journal_id", uuid.uuid4().hex[:12])
            row = journal._connection.execute("SELECT max(seq) FROM facts").fetchone()
        except sqlite3.Error as error:
            raise unreadable(path, error) from error
        journal.sequence = row[0] or 0
        return journal

    # -- reading at the start ----------------------------------------------------------------------------

    def load(self) -> CoreState:
        """The state as recorded: the snapshot and the facts after it.  Raises :class:`JournalError`."""
        try:
            return self._load()
        except TooNew as error:
            raise JournalError(f"the journal {self.path} cannot be read: {error}") from error
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, KeyError, IllegalTransition) as error:
            raise unreadable(self.path, error) from error

    def _load(self) -> CoreState:
        row = self._connection.execute("SELECT seq, version, body FROM snapshot").fetchone()
        state, after = CoreState(), 0
        if row is not None:
            after = row[0]
            document = upcast(SNAPSHOT, row[1], json.loads(row[2]))
            state = CoreState.restore(msgspec.convert(document, Snapshot))
        self._snapshot_at = after
        for _, fact in self.facts_after(after):
            state.apply(fact)
        return state

    def facts_after(self, sequence: int) -> Iterable[tuple[int, f.Fact]]:
        rows = self._connection.execute(
            "SELECT seq, kind, version, body FROM facts WHERE seq > ? ORDER BY seq", (sequence,)
        )
        for seq, kind, version, body in rows:
            yield seq, decode_fact(kind, version, body)

    # -- writing -----------------------------------------------------------------------------------------

    async def append(self, steps: Sequence[Step]) -> None:
        """Make the facts of these steps and the rows that are due durable, in one transaction.

        Raises ``sqlite3.Error`` (disk full, I/O error); nothing was written then, and it can be repeated.
        """
        await self._hand.do(self.append_now, steps)

    def append_now(self, steps: Sequence[Step]) -> None:
        facts = [fact for step in steps for fact in step.facts]
        if not facts:
            return
        last = {record.dataset_id: record for step in steps for record in step.records}
        over = {key for key, record in last.items() if not record.under_way}
        due = [record for key, record in last.items() if key in over or key not in self._under_way]
        with self._connection:
            self._connection.executemany(
                "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)",
                map(self._fact_row, count(self.sequence + 1), facts),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                map(self._dataset_row, due),
            )
            for fact in facts:
                if (see := _SEEN.get(type(fact))) is not None:
                    see(self, fact, last)
        self.sequence += len(facts)
        self._under_way.update(last)
        self._under_way -= over

    @staticmethod
    def _fact_row(sequence: int, fact: f.Fact) -> tuple[Any, ...]:
        kind = type(fact).__name__
        dataset_id = fact.dataset_id if isinstance(fact, f.DatasetFact) else ""
        return sequence, fact.at, dataset_id, kind, f.VERSIONS[kind], encode(fact)

    @staticmethod
    def _dataset_row(record: Dataset) -> tuple[Any, ...]:
        return (
            record.dataset_id,
            record.feed,
            as_bytes(record.series_key),
            as_bytes(record.tilt_series_name),
            as_bytes(record.project),
            as_bytes(record.session),
            record.state,
            int(record.finalized_at is None),
            record.found_at,
            record.state_since_at,
            encode(record),
        )

    # -- the ``seen`` table: what became of each series of a feed ------------------------------------------

    def _see_found(self, fact: f.DatasetFound, last: Records) -> None:
        if fact.run == 1:
            self._connection.execute(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, '', ?, '', x'')",
                (fact.feed, as_bytes(fact.series_key), fact.dataset_id, fact.revision, fact.stat_signature),
            )

    def _see_completed(self, fact: f.DatasetCompleted, last: Records) -> None:
        if fact.stat_signature:
            digest = fact.series.fingerprint.digest
            record = last[fact.dataset_id]
            self._resee(record, "digest = ?, stat_signature = ?", digest, fact.stat_signature)

    def _see_cancelled(self, fact: f.DatasetCancelled, last: Records) -> None:
        if fact.stat_signature:
            self._resee(last[fact.dataset_id], "stat_signature = ?", fact.stat_signature)

    def _resee(self, record: Dataset, columns: str, *values: str) -> None:
        """Change the entry that a dataset's series has, unless it belongs to a later revision already."""
        self._connection.execute(
            f"UPDATE seen SET {columns} WHERE feed = ? AND series_key = ? AND dataset_id = ?",
            (*values, record.feed, as_bytes(record.series_key), record.dataset_id),
        )

    def _see_unchanged(self, fact: f.InputUnchanged, last: Records) -> None:
        self._connection.execute(
            "UPDATE seen SET stat_signature = ? WHERE feed = ? AND series_key = ?",
            (fact.stat_signature, fact.feed, as_bytes(fact.series_key)),
        )

    def _see_ignored(self, fact: f.SeriesIgnored, last: Records) -> None:
        self._connection.execute(
            "INSERT INTO seen VALUES (?, ?, '', 0, '', ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET stat_signature = excluded.stat_signature, "
            "reason = excluded.reason, detail = excluded.detail",
            (
                fact.feed,
                as_bytes(fact.series_key),
                fact.stat_signature,
                fact.reason,
                as_bytes(fact.detail),
            ),
        )

    def _see_adopted(self, fact: f.DatasetAdopted, last: Records) -> None:
        """Its files' signature is not known; the digest tells that they are the same once they are read."""
        record = fact.record
        digest = record.series.fingerprint.digest if record.series is not None else ""
        self._connection.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?, ?, '', '', ?) ON CONFLICT DO UPDATE SET dataset_id = "
            "excluded.dataset_id, revision = excluded.revision, digest = excluded.digest, "
            "stat_signature = '' WHERE excluded.revision > seen.revision",
            (record.feed, as_bytes(record.series_key), record.dataset_id, record.revision, digest, b""),
        )

    # -- snapshots and pruning -----------------------------------------------------------------------------

    def snapshot_due(self, live: int) -> bool:
        return self.sequence - self._snapshot_at >= max(SNAPSHOT_EVERY, 2 * live)

    async def save(self, state: CoreState) -> None:
        """Write a snapshot of a state that the journal holds completely.  Raises ``sqlite3.Error``."""
        snapshot = state.snapshot(self.sequence)
        await self._hand.do(self._save, snapshot)

    def _save(self, snapshot: Snapshot) -> None:
        size = sum(map(len, pieces_of(snapshot)))  # made twice rather than kept
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, zeroblob(?))",
                (snapshot.sequence, SNAPSHOT_VERSION, size),
            )
            with self._connection.blobopen("snapshot", "body", 1) as body:
                for piece in pieces_of(snapshot):
                    body.write(piece)
        self._snapshot_at = snapshot.sequence

    async def prune(self, dataset_ids: Sequence[str]) -> int:
        """Forget the facts of these finished datasets; their rows and ``seen`` entries stay.

        Returns how many facts went.  Live datasets, and facts that a start still needs, are left alone.
        """
        return await self._hand.do(self._prune, tuple(dataset_ids))

    def _prune(self, dataset_ids: tuple[str, ...]) -> int:
        gone = 0
        with self._connection:
            for dataset_id in dataset_ids:
                gone += self._connection.execute(
                    "DELETE FROM facts WHERE dataset_id = ? AND seq <= ? AND dataset_id IN "
                    "(SELECT dataset_id FROM datasets WHERE live = 0)",
                    (dataset_id, self._snapshot_at),
                ).rowcount
        return gone

    async def close(self, state: CoreState | None = None) -> None:
        """Wait for what is being written, keep a last snapshot, and close."""
        if state is not None and self.sequence > self._snapshot_at:
            await self.save(state)
        await self._hand.do(self._connection.close)
        self._hand.close()


_SEEN: dict[type[f.Fact], Callable[[Journal, Any, Records], None]] = {
    f.DatasetFound: Journal._see_found,
    f.DatasetAdopted: Journal._see_adopted,
    f.DatasetCompleted: Journal._see_completed,
    f.DatasetCancelled: Journal._see_cancelled,
    f.InputUnchanged: Journal._see_unchanged,
    f.SeriesIgnored: Journal._see_ignored,
}
"""Facts that tell what became of a series; others change nothing in the ``seen`` table."""
