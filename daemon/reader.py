"""Reading the journal beside its writer: finished datasets, stories, and what is known of each series.

Of a dataset in the working set the row tells what it is, not how it stands: the state tells that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .core import facts as f
from .core.model import Dataset, Record, State
from .journal import as_bytes, as_name, decode_dataset, decode_fact
from .journal_file import connect


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
            return self._connection.execute(question, tuple(map(_bound, values))).fetchall()

    def dataset(self, dataset_id: str) -> Dataset | None:
        rows = self._rows("SELECT body FROM datasets WHERE dataset_id = ?", (dataset_id,))
        return decode_dataset(rows[0][0]) if rows else None

    def find(self, name: str, limit: int = 20, projects: Sequence[str] | None = None) -> list[Dataset]:
        """Datasets with this id or series name, newest first; else those whose id begins with it.  Of these
        ``projects`` only, unless that is ``None``."""
        mine = "" if projects is None else f"AND project IN ({_marks(projects)}) "
        among = [_sought(each) for each in projects or ()]
        rows = self._rows(
            f"SELECT body FROM datasets WHERE dataset_id = ? {mine}UNION ALL "
            f"SELECT body FROM (SELECT body FROM datasets WHERE name = ? AND dataset_id != ? {mine}"
            "ORDER BY found_at DESC LIMIT ?)",
            (_ascii(name), *among, _sought(name), _ascii(name), *among, limit),
        )
        if not rows:
            first = _ascii(name)
            rows = self._rows(
                f"SELECT body FROM datasets WHERE dataset_id >= ? AND dataset_id < ? {mine}"
                "ORDER BY dataset_id LIMIT ?",
                (first, first + "\x7f", *among, limit),
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
                values.append(wanted if column == "feed" else _sought(wanted))
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

    def page(
        self,
        *,
        states: Sequence[str] = (),
        feed: str = "",
        project: str = "",
        session: str = "",
        text: str = "",
        projects: Sequence[str] | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[Dataset]:
        """Those that have left the working set, last changed first.  ``text`` is in the name or begins the
        id; ``projects`` are those that may be seen (``None``: all); ``before`` is change and id of the last
        one of the page before.  Costs the rows of the page, and what the filters pass over."""
        conditions: list[str] = ["live = 0"]
        values: list[Any] = []
        for column, wanted in (("feed", feed), ("project", project), ("session", session)):
            if wanted:
                conditions.append(f"{column} = ?")
                values.append(wanted if column == "feed" else _sought(wanted))
        if states:
            conditions.append(f"state IN ({_marks(states)})")
            values += states
        if projects is not None:
            conditions.append(f"project IN ({_marks(projects)})")
            values += [_sought(name) for name in projects]
        if text:
            conditions.append("(instr(lower(CAST(name AS TEXT)), ?) OR substr(dataset_id, 1, ?) = ?)")
            values += [text.lower(), len(text), text]
        if before is not None:
            conditions.append("(changed_at, dataset_id) < (?, ?)")
            values += before
        rows = self._rows(
            f"SELECT body FROM datasets WHERE {' AND '.join(conditions)} "
            "ORDER BY changed_at DESC, dataset_id DESC LIMIT ?",
            (*values, limit),
        )
        return [decode_dataset(body) for (body,) in rows]

    def counts(self, projects: Sequence[str] | None = None, since_at: float = 0.0) -> dict[str, int]:
        """State -> how many have left the working set in it (since then).  Costs those, from an index."""
        conditions: list[str] = ["live = 0", "changed_at >= ?"]
        values: list[Any] = [since_at]
        if projects is not None:
            conditions.append(f"project IN ({_marks(projects)})")
            values += [_sought(name) for name in projects]
        rows = self._rows(
            f"SELECT state, count(*) FROM datasets WHERE {' AND '.join(conditions)} GROUP BY state", values
        )
        return {str(state): int(count) for state, count in rows}

    def projects(self) -> list[str]:
        """The names of all projects; costs an entry of an index for each dataset."""
        return sorted(
            as_name(name) for (name,) in self._rows("SELECT DISTINCT project FROM datasets") if name
        )

    def acts(
        self, *, before: int | None = None, dataset_id: str = "", limit: int = 100
    ) -> list[tuple[int, f.OperatorActed]]:
        """What operators did, last first; of all datasets or of one."""
        conditions: list[str] = ["kind = 'OperatorActed'"]
        values: list[Any] = []
        if before is not None:
            conditions.append("seq < ?")
            values.append(before)
        if dataset_id:
            conditions.append("json_extract(body, '$.dataset_id') = ?")
            values.append(dataset_id)
        rows = self._rows(
            f"SELECT seq, kind, version, body FROM facts WHERE {' AND '.join(conditions)} "
            "ORDER BY seq DESC LIMIT ?",
            (*values, limit),
        )
        found = ((seq, decode_fact(kind, version, body)) for seq, kind, version, body in rows)
        return [(seq, fact) for seq, fact in found if isinstance(fact, f.OperatorActed)]

    def told(self, limit: int = 50) -> list[f.NoticeSent | f.NoticeGivenUp]:
        """Which notices were sent and which given up, last first; costs those, from an index."""
        rows = self._rows(
            "SELECT kind, version, body FROM facts WHERE kind IN ('NoticeSent', 'NoticeGivenUp') "
            "ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
        found = [decode_fact(kind, version, body) for kind, version, body in rows]
        return [fact for fact in found if isinstance(fact, f.NoticeSent | f.NoticeGivenUp)]

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


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _sought(name: str) -> bytes:
    """A name that somebody asks for; one that no file can have (half a character) is sought in vain."""
    try:
        return as_bytes(name)
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace")


def _bound(value: Any) -> Any:
    """SQLite takes no lone surrogates; ids, feeds and states have none, so such a text is sought in vain."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


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
