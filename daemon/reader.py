"""Reading the journal beside its writer: finished datasets, stories, and what is known of each series."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .core import facts as f
from .core.model import Dataset, Record, State
from .journal import as_bytes, as_name, connect, decode_dataset, decode_fact


class SeenRow(Record):
    """What the journal knows of one series of a feed.  ``reason`` is set for what is no tilt series."""

    series_key: str
    dataset_id: str
    revision: int
    digest: str
    stat_signature: str
    reason: str
    detail: str


class JournalReader:
    """A read-only connection, to be used from worker threads, one question at a time.

    Every question costs an indexed look-up and the rows that it returns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path, read_only=True)
        self._lock = threading.Lock()

    def _rows(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(question, values).fetchall()

    def dataset(self, dataset_id: str) -> Dataset | None:
        rows = self._rows("SELECT body FROM datasets WHERE dataset_id = ?", (dataset_id,))
        return decode_dataset(rows[0][0]) if rows else None

    def find(self, name: str, limit: int = 20) -> list[Dataset]:
        """Datasets with this id or series name, newest first; else those whose id begins with it."""
        rows = self._rows(
            "SELECT body FROM datasets WHERE dataset_id = ? UNION ALL "
            "SELECT body FROM (SELECT body FROM datasets WHERE name = ? AND dataset_id != ? "
            "ORDER BY found_at DESC LIMIT ?)",
            (name.encode("ascii", "replace").decode(), as_bytes(name), _ascii(name), limit),
        )
        if not rows:
            first = _ascii(name)
            rows = self._rows(
                "SELECT body FROM datasets WHERE dataset_id >= ? AND dataset_id < ? "
                "ORDER BY dataset_id LIMIT ?",
                (first, first + "\x7f", limit),
            )
        return [decode_dataset(body) for (body,) in rows]

    def select(
        self,
        *,
        states: Sequence[str] = (),
        feed: str = "",
        project: str = "",
        session: str = "",
        live: bool | None = None,
        changed_before_at: float | None = None,
        limit: int = 1000,
    ) -> list[Dataset]:
        """Datasets that meet all conditions given, last changed first."""
        conditions: list[str] = []
        values: list[Any] = []
        if states:
            conditions.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        for column, wanted in (("feed", feed), ("project", project), ("session", session)):
            if wanted:
                conditions.append(f"{column} = ?")
                values.append(wanted if column == "feed" else as_bytes(wanted))
        if live is not None:
            conditions.append("live = ?")
            values.append(int(live))
        if changed_before_at is not None:
            conditions.append("changed_at < ?")
            values.append(changed_before_at)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._rows(
            f"SELECT body FROM datasets {where} ORDER BY changed_at DESC LIMIT ?", (*values, limit)
        )
        return [decode_dataset(body) for (body,) in rows]

    def latest_run(self, dataset: Dataset) -> int:
        """The highest run number that this revision ever had."""
        rows = self._rows(
            "SELECT body FROM datasets WHERE feed = ? AND series_key = ?",
            (dataset.feed, as_bytes(dataset.series_key)),
        )
        siblings = [decode_dataset(body) for (body,) in rows]
        return max((d.run for d in siblings if d.revision == dataset.revision), default=dataset.run)

    def facts(self, dataset_id: str) -> list[tuple[int, f.Fact]]:
        """The dataset's story, oldest first."""
        rows = self._rows(
            "SELECT seq, kind, version, body FROM facts WHERE dataset_id = ? ORDER BY seq", (dataset_id,)
        )
        return [(seq, decode_fact(kind, version, body)) for seq, kind, version, body in rows]

    def get(self, feed: str, series_key: str) -> SeenRow | None:
        """What became of this series before, for the watcher."""
        rows = self._rows(
            "SELECT series_key, dataset_id, revision, digest, stat_signature, reason, detail FROM seen "
            "WHERE feed = ? AND series_key = ?",
            (feed, as_bytes(series_key)),
        )
        return _seen(rows[0]) if rows else None

    def seen(self, feed: str) -> Iterator[SeenRow]:
        """Everything known of a feed; costs its series."""
        for row in self._rows(
            "SELECT series_key, dataset_id, revision, digest, stat_signature, reason, detail FROM seen "
            "WHERE feed = ?",
            (feed,),
        ):
            yield _seen(row)

    def ignored(self, feed: str, limit: int = 1000) -> list[SeenRow]:
        """What was found to be no tilt series."""
        rows = self._rows(
            "SELECT series_key, dataset_id, revision, digest, stat_signature, reason, detail FROM seen "
            "WHERE feed = ? AND reason != '' LIMIT ?",
            (feed, limit),
        )
        return [_seen(row) for row in rows]

    def finished_counts(self) -> list[tuple[str, State, int]]:
        """How many datasets have left the working set, by feed and state; costs all rows, once at start."""
        rows = self._rows("SELECT feed, state, count(*) FROM datasets WHERE live = 0 GROUP BY feed, state")
        return [(feed, State(state), count) for feed, state, count in rows]

    def finished_ids(self) -> frozenset[str]:
        """Ids of all datasets that have left the working set; costs all of them, from an index."""
        return frozenset(key for (key,) in self._rows("SELECT dataset_id FROM datasets WHERE live = 0"))

    @property
    def size_bytes(self) -> int:
        """Of the journal and its write-ahead log on disk."""
        total = 0
        for path in (self._path, self._path.with_name(self._path.name + "-wal")):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode()


def _seen(row: tuple[Any, ...]) -> SeenRow:
    return SeenRow(
        series_key=as_name(row[0]),
        dataset_id=row[1],
        revision=row[2],
        digest=row[3],
        stat_signature=row[4],
        reason=row[5],
        detail=as_name(row[6]),
    )
